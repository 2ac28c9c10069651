// tests/tensor/bf16_matmul_test.cpp - products of bf16 matrices on the CPU in every way that this
// machine has: each against sums in double of the same rounded inputs.
#include "tensor/cpu/bf16_matmul.h"

#include <doctest/doctest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tensor/engine.h"

using namespace murmur;

namespace {

const Engine& e = engine(Device::cpu);

Tensor random(Shape shape, uint64_t stream, DType dtype = DType::bf16) {
  Tensor x(shape, dtype);
  e.random_uniform(7, stream, -1, 1, x);
  return x;
}

// Runs `test` with each way to multiply that this machine has.
void with_each_product(const std::function<void()>& test) {
  struct Way {
    std::string name;
    bool available;
    Bf16Multiply product;
  };
  for (const Way& way :
       {Way{"AMX", amx_available(), amx_product}, Way{"oneDNN", onednn_has_bf16(), onednn_product},
        Way{"fp32", true, fp32_product}}) {
    if (!way.available) continue;
    forced_bf16_product() = way.product;
    INFO("product by ", way.name);
    test();
  }
  forced_bf16_product() = nullptr;
}

std::vector<double> transposed(const std::vector<double>& x, int64_t rows, int64_t cols) {
  std::vector<double> y(x.size());
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < cols; j++) y[size_t(j * rows + i)] = x[size_t(i * cols + j)];
  }
  return y;
}

// op(a) op(b) of one pair of matrices, in double.
std::vector<double> product(const Tensor& a, bool turn_a, const Tensor& b, bool turn_b) {
  std::vector<double> x = to_vector(a), y = to_vector(b);
  if (turn_a) x = transposed(x, a.rows(), a.cols());
  if (!turn_b) y = transposed(y, b.rows(), b.cols());
  int64_t m = turn_a ? a.cols() : a.rows(), n = turn_b ? b.rows() : b.cols(),
          k = turn_a ? a.rows() : a.cols();
  std::vector<double> c(size_t(m * n), 0.0);
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) {
      const double *left = x.data() + i * k, *right = y.data() + j * k;
      double sum = 0;
      for (int64_t p = 0; p < k; p++) sum += left[p] * right[p];
      c[size_t(i * n + j)] = sum;
    }
  }
  return c;
}

// Within one rounding of the result and the rounding of sums of k terms in fp32.
void check_close(const Tensor& got, const std::vector<double>& expected, int64_t k) {
  std::vector<double> values = to_vector(got);
  REQUIRE(values.size() == expected.size());
  double unit = got.dtype() == DType::bf16 ? std::ldexp(1.0, -8) : std::ldexp(1.0, -24);
  double largest = 0, at = 0;
  for (size_t i = 0; i < values.size(); i++) {
    double allowed = 1.01 * unit * std::fabs(expected[i]) + 1e-6 * std::sqrt(double(k)) + 1e-7;
    double share = std::fabs(values[i] - expected[i]) / allowed;
    if (!(share <= largest)) largest = share, at = double(i);
  }
  CAPTURE(at);
  CHECK(largest <= 1);
}

bool same_bits(const Tensor& x, const Tensor& y) {
  return x.bytes() == y.bytes() && std::memcmp(x.raw(), y.raw(), x.bytes()) == 0;
}

}  // namespace

TEST_CASE("bf16 matmul: every transposition at sizes around tiles, panels and pieces") {
  with_each_product([] {
    struct Size {
      int64_t m, n, k;
    };
    for (Size s : {Size{1, 1, 1}, Size{15, 16, 17}, Size{16, 17, 31}, Size{17, 31, 33},
                   Size{31, 33, 15}, Size{33, 1, 100}, Size{1, 100, 33}, Size{100, 31, 384},
                   Size{384, 100, 16}, Size{33, 800, 64}, Size{50, 40, 1024}, Size{50, 40, 1025},
                   Size{40, 390, 1100}, Size{790, 20, 1030}}) {
      for (int form = 0; form < 8; form++) {
        bool ta = form & 1, tb = form & 2;
        DType out = form & 4 ? DType::f32 : DType::bf16;
        CAPTURE(s.m);
        CAPTURE(s.n);
        CAPTURE(s.k);
        CAPTURE(form);
        Tensor a = random(ta ? Shape{s.k, s.m} : Shape{s.m, s.k}, 0);
        Tensor b = random(tb ? Shape{s.n, s.k} : Shape{s.k, s.n}, 1);
        Tensor c({s.m, s.n}, out);
        e.matmul(a, b, {c}, {.transpose_a = ta, .transpose_b = tb});
        check_close(c, product(a, ta, b, tb), s.k);
      }
    }
  });
}

TEST_CASE(
    "bf16 matmul: strided sides and results, a factor per matrix, addends, bias, activation") {
  with_each_product([] {
    constexpr int64_t kCount = 3, m = 37, n = 45, k = 70;
    for (int form = 0; form < 16; form++) {
      bool accumulate = form & 1, add = form & 2, with_bias = form & 4;
      DType out = form & 8 ? DType::f32 : DType::bf16;
      CAPTURE(form);
      Tensor a = random({kCount, m, k + 9}, 0).columns(5, 5 + k),
             b = random({kCount, n, k + 3}, 1).columns(1, 1 + k),
             plus = random({kCount, m, n + 2}, 2, out).columns(2, 2 + n),
             c = random({kCount, m, n + 7}, 3, out).columns(3, 3 + n),
             bias = random({n}, 4, DType::f32), factors = random({kCount}, 5, DType::f32),
             activated({kCount, m, n}, out);
      std::vector<double> before = to_vector(c), added = to_vector(plus), columns = to_vector(bias),
                          factor = to_vector(factors), expected;
      for (int64_t matrix = 0; matrix < kCount; matrix++) {
        std::vector<double> one =
            product(a.slice(matrix, matrix + 1), false, b.slice(matrix, matrix + 1), true);
        for (size_t i = 0; i < one.size(); i++) {
          size_t at = size_t(matrix) * one.size() + i;
          expected.push_back(1.5 * factor[size_t(matrix)] * one[i] + accumulate * before[at] +
                             add * -0.75 * added[at] + with_bias * columns[i % n]);
        }
      }
      e.matmul(a, b, {c, accumulate},
               {.transpose_b = true,
                .alpha = {1.5, factors},
                .plus = add ? plus : Tensor(),
                .beta = -0.75,
                .bias = with_bias ? bias : Tensor(),
                .op = Unary::gelu,
                .activated = activated});
      check_close(c, expected, 4 * k);
      Tensor copy({kCount, m, n}, out), again({kCount, m, n}, out);
      e.copy(c, copy);
      e.map(Unary::gelu, copy, again);
      CHECK(same_bits(again, activated));
    }
  });
}

TEST_CASE("bf16 matmul: an empty inner dimension leaves what is added") {
  with_each_product([] {
    Tensor plus = random({20, 30}, 0), c({20, 30}, DType::bf16);
    e.matmul(Tensor({20, 0}, DType::bf16), Tensor({0, 30}, DType::bf16), {c}, {.plus = plus});
    CHECK(same_bits(c, plus));
  });
}

TEST_CASE("matmul: a symmetric result is exactly symmetric and what the whole product gives") {
  auto check_symmetric = [](DType dtype) {
    for (int64_t side : {1, 15, 17, 33, 100, 128, 200, 384, 520, 800}) {
      for (int64_t inner : {20, 1030}) {
        for (bool tall : {false, true}) {
          if (inner > 1000 && side > 384) continue;
          CAPTURE(name_of(dtype));
          CAPTURE(side);
          CAPTURE(inner);
          CAPTURE(tall);
          Tensor x = random(tall ? Shape{2, inner, side} : Shape{2, side, inner}, 0, dtype);
          Tensor whole({2, side, side}, dtype), half({2, side, side}, dtype), plus = whole;
          MatmulForm form{.transpose_a = tall, .transpose_b = !tall, .alpha = 0.01};
          e.matmul(x, x, {whole}, form);
          form.symmetric = true;
          e.matmul(x, x, {half}, form);
          // Blocks differ, sums do not: with oneDNN a few roundings may.
          double unit = dtype == DType::bf16 ? 1.0 / 128 : dtype == DType::f32 ? 1e-5 : 1e-13;
          std::vector<double> a = to_vector(half), b = to_vector(whole);
          bool symmetric = true, close = true;
          for (int64_t matrix = 0; matrix < 2; matrix++) {
            for (int64_t i = 0; i < side; i++) {
              for (int64_t j = 0; j < side; j++) {
                size_t at = size_t((matrix * side + i) * side + j);
                symmetric &= a[at] == a[size_t((matrix * side + j) * side + i)];
                close &= std::fabs(a[at] - b[at]) <= unit * (std::fabs(b[at]) + 0.1);
              }
            }
          }
          CHECK(symmetric);
          CHECK(close);
        }
      }
    }
  };
  with_each_product([&] { check_symmetric(DType::bf16); });
  check_symmetric(DType::f32);
  check_symmetric(DType::f64);
}

TEST_CASE("bf16 matmul: the polynomial of a symmetric matrix, added to itself") {
  with_each_product([] {
    constexpr int64_t side = 200;
    Tensor x = random({2, side, 60}, 0), gram({2, side, side}, DType::bf16),
           poly = Tensor(gram.shape(), DType::bf16);
    e.matmul(x, x, {gram}, {.transpose_b = true, .alpha = 0.02, .symmetric = true});
    e.matmul(gram, gram, {poly},
             {.alpha = 2.0315, .plus = gram, .beta = -4.775, .symmetric = true});
    for (int64_t matrix = 0; matrix < 2; matrix++) {
      Tensor g = gram.slice(matrix, matrix + 1);
      std::vector<double> expected = product(g, false, g, false), added = to_vector(g);
      for (size_t i = 0; i < expected.size(); i++)
        expected[i] = 2.0315 * expected[i] - 4.775 * added[i];
      check_close(poly.slice(matrix, matrix + 1), expected, 16 * side);
    }
  });
}

TEST_CASE("bf16 matmul: one thread and many give the same bits") {
  with_each_product([] {
    auto run = [] {
      Tensor x = random({3, 130, 400}, 0), gram({3, 130, 130}, DType::bf16),
             next({3, 130, 400}, DType::bf16);
      Tensor a = random({500, 1100}, 1), b = random({1100, 700}, 2), c({500, 700});
      e.matmul(x, x, {gram}, {.transpose_b = true, .alpha = 0.02, .symmetric = true});
      e.matmul(gram, x, {next}, {.plus = x, .beta = 3});
      e.matmul(a, b, {c}, {});
      return std::vector<Tensor>{gram, next, c};
    };
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    std::vector<Tensor> one = run();
    for (int n : {2, 3, 5, 8, 16}) {
      CAPTURE(n);
      omp_set_num_threads(n);
      std::vector<Tensor> many = run();
      for (size_t i = 0; i < one.size(); i++) CHECK(same_bits(one[i], many[i]));
    }
    omp_set_num_threads(threads);
  });
}

TEST_CASE("bf16 matmul: NaN and infinity reach their row or column and nothing else") {
  with_each_product([] {
    constexpr int64_t m = 40, n = 50, k = 33;
    Tensor a = random({m, k}, 0), b = random({k, n}, 1), c({m, n}, DType::bf16);
    a.data<bf16>()[17 * k + 32] = bf16(NAN);
    b.data<bf16>()[5 * n + 49] = bf16(INFINITY);
    e.matmul(a, b, {c}, {});
    for (int64_t i = 0; i < m; i++) {
      for (int64_t j = 0; j < n; j++) {
        float value = float(c.data<bf16>()[i * n + j]);
        CAPTURE(i);
        CAPTURE(j);
        if (i == 17) {
          CHECK(std::isnan(value));
        } else {
          CHECK(std::isinf(value) == (j == 49));
          CHECK_FALSE(std::isnan(value));
        }
      }
    }
  });
}
