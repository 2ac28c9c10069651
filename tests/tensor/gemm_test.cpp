// tests/tensor/gemm_test.cpp - products of fp32 and bf16 matrices on the CPU by every instruction
// set that this machine has: each against sums in double of the same inputs.
#include "tensor/cpu/gemm.h"

#include <doctest/doctest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "tensor/check.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {
extern const GemmKernel gemm_amx_on_cpu;  // amx_on_cpu.h; needs AVX512_BF16
}

using namespace murmur;

namespace {

// The kernel of all products while it lives.
struct Forced {
  explicit Forced(const GemmKernel& kernel) { forced_gemm_kernel() = &kernel; }
  ~Forced() { forced_gemm_kernel() = nullptr; }
};

// A test case for each instruction set. Those that this processor does not have count as skipped.
#define EACH_KERNEL(title) EACH_KERNEL_RUNS(title, DOCTEST_ANONYMOUS(each_kernel_))
#define EACH_KERNEL_RUNS(title, body)  \
  static void body();                  \
  ONE_KERNEL(title, body, avx2)        \
  ONE_KERNEL(title, body, avx512)      \
  ONE_KERNEL(title, body, avx512_bf16) \
  ONE_KERNEL(title, body, amx)         \
  ONE_KERNEL(title, body, amx_on_cpu)  \
  static void body()
#define ONE_KERNEL(title, body, isa)                                       \
  TEST_CASE(title " (" #isa ")" * doctest::skip(!runs_here(gemm_##isa))) { \
    Forced kernel(gemm_##isa);                                             \
    body();                                                                \
  }

Tensor random(Shape shape, uint64_t stream, DType dtype = DType::bf16) {
  Tensor x(shape, dtype);
  ops::random_uniform(7, stream, -1, 1, x);
  return x;
}

// op(a) op(b) of one pair of matrices, in double.
std::vector<double> product(const Tensor& a, bool turn_a, const Tensor& b, bool turn_b) {
  auto by_lines = [](const Tensor& x, bool turn) {
    std::vector<double> y = to_vector(x), turned(y.size());
    if (!turn) return y;
    for (int64_t i = 0; i < x.rows(); i++) {
      for (int64_t j = 0; j < x.cols(); j++)
        turned[size_t(j * x.rows() + i)] = y[size_t(i * x.cols() + j)];
    }
    return turned;
  };
  std::vector<double> x = by_lines(a, turn_a), y = by_lines(b, !turn_b);
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

// Within one rounding of the result and k roundings of sums in fp32, which grow as sqrt(k).
void check_close(const Tensor& got, const std::vector<double>& expected, int64_t k) {
  std::vector<double> values = to_vector(got);
  REQUIRE(values.size() == expected.size());
  double unit = got.dtype() == DType::bf16 ? std::ldexp(1.0, -8) : std::ldexp(1.0, -24);
  double largest = 0, at = 0;
  for (size_t i = 0; i < values.size(); i++) {
    double allowed = 1.01 * unit * std::fabs(expected[i]) + 1e-6 * std::sqrt(double(k)) +
                     std::ldexp(double(k), -24) + 1e-7;
    double share = std::fabs(values[i] - expected[i]) / allowed;
    if (!(share <= largest)) largest = share, at = double(i);
  }
  CAPTURE(at);
  CHECK(largest <= 1);
}

bool same_bits(const Tensor& x, const Tensor& y) {
  return x.bytes() == y.bytes() && std::memcmp(x.raw(), y.raw(), x.bytes()) == 0;
}

struct Types {
  DType in, out;
};
const std::vector<Types> kTypes = {
    {DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::bf16, DType::f32}};

void check_product(int64_t m, int64_t n, int64_t k, bool ta, bool tb, Types types) {
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  CAPTURE(ta);
  CAPTURE(tb);
  CAPTURE(std::string(name_of(types.in)));
  Tensor a = random(ta ? Shape{k, m} : Shape{m, k}, 0, types.in);
  Tensor b = random(tb ? Shape{n, k} : Shape{k, n}, 1, types.in);
  Tensor c({m, n}, types.out);
  ops::matmul(a, b, {c}, {.transpose_a = ta, .transpose_b = tb});
  check_close(c, product(a, ta, b, tb), k);
}

}  // namespace

EACH_KERNEL("gemm: every transposition at sizes around vectors, tiles and panels") {
  // Every pair of a height and a width, with inner dimensions and transpositions in turn.
  const std::vector<int64_t> sizes = {1,  3,  4,  5,  6,  12, 13,  16,  17,  31,
                                      32, 33, 48, 64, 65, 96, 127, 128, 130, 131};
  for (size_t i = 0; i < sizes.size(); i++) {
    for (size_t j = 0; j < sizes.size(); j++) {
      int64_t k = sizes[(3 * i + 7 * j) % sizes.size()];
      for (size_t t = 0; t < kTypes.size(); t++) {
        size_t form = i + j / 4 + t;
        check_product(sizes[i], sizes[j], k, form & 1, form & 2, kTypes[t]);
      }
    }
  }
}

EACH_KERNEL("gemm: every transposition where the inner dimension goes by in pieces") {
  struct Size {
    int64_t m, n, k;
  };
  for (Size s : {Size{33, 45, 769}, Size{50, 40, 1153}, Size{14, 300, 1537}, Size{790, 20, 1600},
                 Size{2, 2, 3000}}) {
    for (int form = 0; form < 4; form++) {
      for (Types types : kTypes) check_product(s.m, s.n, s.k, form & 1, form & 2, types);
    }
  }
}

EACH_KERNEL("gemm: strided sides and results, factors, addends, bias, activation, slope, sums") {
  constexpr int64_t kCount = 3, m = 37, n = 45, k = 70;
  for (Types types : kTypes) {
    for (int form = 0; form < 16; form++) {
      bool accumulate = form & 1, add = form & 2, with_bias = form & 4, with_slope = form & 8;
      double alpha = form % 3 ? 1.5 : 1;
      CAPTURE(form);
      CAPTURE(std::string(name_of(types.in)));
      Tensor a = random({kCount, m, k + 9}, 0, types.in).columns(5, 5 + k),
             b = random({kCount, n, k + 3}, 1, types.in).columns(1, 1 + k),
             plus = random({kCount, m, n + 2}, 2, types.out).columns(2, 2 + n),
             c = random({kCount, m, n + 7}, 3, types.out).columns(3, 3 + n),
             bias = random({n}, 4, DType::f32), factors = random({kCount}, 5, DType::f32),
             at = random({kCount, m, n}, 6, types.out), activated({kCount, m, n}, types.out),
             sums = random({k}, 7, DType::f32);
      if (alpha == 1) ops::fill(factors, 1);
      std::vector<double> before = to_vector(c), added = to_vector(plus), columns = to_vector(bias),
                          factor = to_vector(factors), rows = to_vector(a), expected,
                          expected_sums = to_vector(sums);
      for (int64_t matrix = 0; matrix < kCount; matrix++) {
        std::vector<double> one =
            product(a.slice(matrix, matrix + 1), false, b.slice(matrix, matrix + 1), true);
        for (size_t i = 0; i < one.size(); i++) {
          size_t place = size_t(matrix) * one.size() + i;
          expected.push_back(alpha * factor[size_t(matrix)] * one[i] + accumulate * before[place] +
                             add * -0.75 * added[place] + with_bias * columns[i % n]);
        }
      }
      for (size_t i = 0; i < rows.size(); i++) expected_sums[i % k] += rows[i];
      MatmulForm how{.transpose_b = true,
                     .alpha = {alpha, factors},
                     .plus = add ? plus : Tensor(),
                     .beta = -0.75,
                     .bias = with_bias ? bias : Tensor(),
                     .sums = sums,
                     .add_to_sums = true,
                     .op = unary::gelu};
      (with_slope ? how.slope_at : how.activated) = with_slope ? at : activated;
      ops::matmul(a, b, {c, accumulate}, how);
      check_close(sums, expected_sums, 4 * m * kCount);
      Tensor copy({kCount, m, n}, types.out), again({kCount, m, n}, types.out);
      if (with_slope) {
        ops::fill(again, 1);
        ops::map_backward(unary::gelu, at, again, {copy});
        std::vector<double> slopes = to_vector(copy);
        for (size_t i = 0; i < expected.size(); i++) expected[i] *= slopes[i];
        if (types.out == DType::f32) check_close(c, expected, 4 * k);
      } else {
        check_close(c, expected, 4 * k);
        ops::copy(c, copy);
        ops::map(unary::gelu, copy, again);
        CHECK(same_bits(again, activated));
      }
    }
  }
}

EACH_KERNEL("gemm: an empty inner dimension leaves what is added") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    Tensor plus = random({20, 30}, 0, dtype), c({20, 30}, dtype);
    ops::matmul(Tensor({20, 0}, dtype), Tensor({0, 30}, dtype), {c}, {.plus = plus});
    CHECK(same_bits(c, plus));
  }
}

EACH_KERNEL("gemm: fp32 sides of a bf16 product are rounded as bf16 tensors are") {
  constexpr int64_t m = 29, n = 70, k = 45;
  for (int form = 0; form < 4; form++) {
    CAPTURE(form);
    bool left_rows = form & 1, right_rows = form & 2;
    Tensor a = random(left_rows ? Shape{m, k} : Shape{k, m}, 0, DType::f32),
           b = random(right_rows ? Shape{n, k} : Shape{k, n}, 1, DType::f32),
           a16(a.shape(), DType::bf16), b16(b.shape(), DType::bf16);
    a.data<float>()[7] = NAN;  // its payload must not be rounded up to another number
    ops::copy(a, a16);
    ops::copy(b, b16);
    auto sums_of = [&](const Tensor& x, const Tensor& y) {
      auto side = [](const Tensor& t, bool rows) {
        return GemmSide{t.raw(), t.cols(), rows, t.dtype() == DType::bf16};
      };
      Tensor sums({m, n});
      GemmBlock block{m, n, k, side(x, left_rows), side(y, right_rows)};
      block.sums = sums.data<float>();
      block.stride = n;
      const GemmProduct& gemm = gemm_kernel().bf16;
      gemm.multiply(block, Tensor({gemm.scratch_size(block)}).data<float>());
      return to_vector(sums);
    };
    std::vector<double> rounded = sums_of(a16, b16);
    for (const std::vector<double>& got : {sums_of(a, b), sums_of(a16, b), sums_of(a, b16)}) {
      size_t differ = 0, odd = 0;
      for (size_t i = 0; i < got.size(); i++) {
        odd += std::isnan(rounded[i]);
        differ += std::isnan(rounded[i]) ? !std::isnan(got[i]) : got[i] != rounded[i];
      }
      CHECK(odd == n);
      CHECK(differ == 0);
    }
  }
}

void check_symmetric(DType dtype) {
  for (int64_t side : {1, 15, 17, 33, 100, 128, 200, 384, 520, 800}) {
    for (int64_t inner : {20, 1030, 1600}) {
      for (bool tall : {false, true}) {
        if (inner > 1000 && side > 384) continue;
        CAPTURE(std::string(name_of(dtype)));
        CAPTURE(side);
        CAPTURE(inner);
        CAPTURE(tall);
        Tensor x = random(tall ? Shape{2, inner, side} : Shape{2, side, inner}, 0, dtype);
        Tensor whole({2, side, side}, dtype), half({2, side, side}, dtype);
        MatmulForm form{.transpose_a = tall, .transpose_b = !tall, .alpha = 0.01};
        ops::matmul(x, x, {whole}, form);
        form.symmetric = true;
        ops::matmul(x, x, {half}, form);
        CHECK(same_bits(whole, half));
        std::vector<double> a = to_vector(half);
        bool symmetric = true;
        for (int64_t i = 0; i < 2 * side; i++) {
          for (int64_t j = 0; j < side; j++)
            symmetric &=
                a[size_t(i * side + j)] == a[size_t((i / side * side + j) * side + i % side)];
        }
        CHECK(symmetric);
      }
    }
  }
}

EACH_KERNEL("gemm: half of a symmetric result, mirrored, is the whole product to the bit") {
  check_symmetric(DType::bf16);
  check_symmetric(DType::f32);
}

TEST_CASE("matmul: half of a symmetric result in fp64") { check_symmetric(DType::f64); }

EACH_KERNEL("gemm: the polynomial of a symmetric matrix, added to itself") {
  constexpr int64_t side = 200;
  Tensor x = random({2, side, 60}, 0), gram({2, side, side}, DType::bf16),
         poly = Tensor(gram.shape(), DType::bf16);
  ops::matmul(x, x, {gram}, {.transpose_b = true, .alpha = 0.02, .symmetric = true});
  ops::matmul(gram, gram, {poly},
              {.alpha = 2.0315, .plus = gram, .beta = -4.775, .symmetric = true});
  for (int64_t matrix = 0; matrix < 2; matrix++) {
    Tensor g = gram.slice(matrix, matrix + 1);
    std::vector<double> expected = product(g, false, g, false), added = to_vector(g);
    for (size_t i = 0; i < expected.size(); i++)
      expected[i] = 2.0315 * expected[i] - 4.775 * added[i];
    check_close(poly.slice(matrix, matrix + 1), expected, 16 * side);
  }
}

// Three matrices at once and one with a long inner dimension, in both types.
std::vector<Tensor> some_products() {
  std::vector<Tensor> results;
  for (DType dtype : {DType::f32, DType::bf16}) {
    Tensor x = random({3, 130, 400}, 0, dtype), gram({3, 130, 130}, dtype),
           next({3, 130, 400}, dtype);
    Tensor a = random({500, 1700}, 1, dtype), b = random({1700, 700}, 2, dtype), c({500, 700});
    ops::matmul(x, x, {gram}, {.transpose_b = true, .alpha = 0.02, .symmetric = true});
    ops::matmul(gram, x, {next}, {.plus = x, .beta = 3});
    ops::matmul(a, b, {c}, {});
    results.insert(results.end(), {gram, next, c});
  }
  return results;
}

EACH_KERNEL("gemm: one thread and many give the same bits") {
  int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  std::vector<Tensor> one = some_products();
  for (int n : {2, 3, 5, 8, 16}) {
    CAPTURE(n);
    omp_set_num_threads(n);
    std::vector<Tensor> many = some_products();
    for (size_t i = 0; i < one.size(); i++) CHECK(same_bits(one[i], many[i]));
  }
  omp_set_num_threads(threads);
}

TEST_CASE("gemm: every instruction set gives the same bits in fp32") {
  std::vector<std::vector<Tensor>> results;
  for (const GemmKernel* kernel : kGemmKernels) {
    if (!runs_here(*kernel)) continue;
    Forced it(*kernel);
    results.push_back(some_products());
    for (size_t i = 0; i < 3; i++) CHECK(same_bits(results.back()[i], results[0][i]));
  }
}

EACH_KERNEL("gemm: NaN and infinity reach their row or column and nothing else") {
  constexpr int64_t m = 40, n = 50, k = 33;
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (int form = 0; form < 4; form++) {
      bool ta = form & 1, tb = form & 2;
      CAPTURE(form);
      Tensor a = random(ta ? Shape{k, m} : Shape{m, k}, 0, dtype),
             b = random(tb ? Shape{n, k} : Shape{k, n}, 1, dtype), c({m, n}, dtype);
      auto put = [&](Tensor& x, int64_t at, float value) {
        if (dtype == DType::f32)
          x.data<float>()[at] = value;
        else
          x.data<bf16>()[at] = bf16(value);
      };
      put(a, ta ? 32 * m + 17 : 17 * k + 32, NAN);
      put(b, tb ? 49 * k + 5 : 5 * n + 49, INFINITY);
      ops::matmul(a, b, {c}, {.transpose_a = ta, .transpose_b = tb});
      std::vector<double> values = to_vector(c);
      size_t wrong = 0;
      for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
          double value = values[size_t(i * n + j)];
          wrong +=
              i == 17 ? !std::isnan(value) : std::isnan(value) || std::isinf(value) != (j == 49);
        }
      }
      CHECK(wrong == 0);
    }
  }
}

EACH_KERNEL("attention in fp32 and bf16, forward and backward, beside fp64") {
  constexpr int64_t heads = 2;
  struct Case {
    int64_t time, size;
  };
  for (Case c : {Case{1, 64}, Case{5, 33}, Case{31, 4}, Case{64, 32}, Case{96, 20}, Case{97, 64},
                 Case{150, 16}, Case{230, 65}}) {
    CAPTURE(c.time);
    CAPTURE(c.size);
    int64_t width = heads * c.size;
    Tensor qkv = random({2, c.time, 3 * width}, 0), dy = random({2, c.time, width}, 1),
           before = random({2, c.time, 3 * width}, 2);
    // y, lse, dqkv, and dqkv added to what was there
    auto run = [&](DType dtype) {
      auto as = [&](const Tensor& x) {
        Tensor y(x.shape(), dtype);
        ops::copy(x, y);
        return y;
      };
      Tensor x = as(qkv), y = as(dy), lse({2, heads, c.time}, compute_type(dtype)), dx = as(before),
             added = as(before);
      ops::attention(heads, x, y, lse);
      ops::attention_backward(heads, x, y, lse, as(dy), {dx});
      ops::attention_backward(heads, x, y, lse, as(dy), {added, true});
      return std::vector<std::vector<double>>{to_vector(y), to_vector(lse), to_vector(dx),
                                              to_vector(added)};
    };
    std::vector<std::vector<double>> exact = run(DType::f64);
    for (DType dtype : {DType::f32, DType::bf16}) {
      CAPTURE(std::string(name_of(dtype)));
      std::vector<std::vector<double>> got = run(dtype);
      for (size_t i = 0; i < exact.size(); i++) {
        CAPTURE(i);
        double largest = 0, worst = 0;
        for (double v : exact[i]) largest = std::max(largest, std::fabs(v));
        for (size_t j = 0; j < exact[i].size(); j++) {
          double error = std::fabs(got[i][j] - exact[i][j]);
          if (!(error <= worst)) worst = error;
        }
        CHECK(worst <= (dtype == DType::f32 ? 2e-6 : 1e-2) * std::max(largest, 1.0));
      }
    }
  }
}
