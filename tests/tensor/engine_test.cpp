// tests/tensor/engine_test.cpp - the CPU engine against plain loops in double: odd sizes, strided
// rows, every element type; and the promise that the number of threads never changes a bit.
#include <doctest/doctest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/cpu/parallel.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"
#include "tensor/ops/philox.h"

using namespace murmur;

namespace {

Tensor random(Shape shape, uint64_t stream, DType dtype = DType::f32, double low = -1,
              double high = 1) {
  Tensor x(shape, dtype);
  ops::random_uniform(3, stream, low, high, x);
  return x;
}

double sum_of(const Tensor& x) {
  Tensor s({1}, DType::f64);
  ops::sum(1, x, s);
  return item(s);
}
double squares_of(const Tensor& x) {
  Tensor s({1}, DType::f64);
  ops::sum_of_squares(x, s);
  return item(s);
}

double tolerance(DType dtype) {
  return dtype == DType::f64 ? 1e-12 : dtype == DType::f32 ? 2e-6 : 1e-2;
}

void check_close(const std::vector<double>& got, const std::vector<double>& expected,
                 double relative) {
  REQUIRE(got.size() == expected.size());
  double scale = 0;
  for (double v : expected) scale = std::max(scale, std::fabs(v));
  size_t worst = 0;
  for (size_t i = 0; i < got.size(); i++) {
    if (!(std::fabs(got[i] - expected[i]) <= std::fabs(got[worst] - expected[worst]))) worst = i;
  }
  if (got.empty()) return;
  CAPTURE(worst);
  CAPTURE(got[worst]);
  CAPTURE(expected[worst]);
  CHECK(std::fabs(got[worst] - expected[worst]) <= relative * std::max(scale, 1.0));
}

double at(const std::vector<double>& x, int64_t i, int64_t j, int64_t cols, bool transposed,
          int64_t rows) {
  return transposed ? x[size_t(j * rows + i)] : x[size_t(i * cols + j)];
}

}  // namespace

TEST_CASE("matmul: every transposition, type, accumulation, bias; odd and degenerate sizes") {
  struct Size {
    int64_t m, n, k;
  };
  for (Size s : {Size{1, 1, 1}, Size{3, 5, 7}, Size{33, 17, 65}, Size{200, 130, 64},
                 Size{1, 300, 20}, Size{300, 1, 20}}) {
    for (DType dtype : {DType::f32, DType::f64, DType::bf16}) {
      for (int form = 0; form < 8; form++) {
        bool ta = form & 1, tb = form & 2, accumulate = form & 4;
        CAPTURE(s.m);
        CAPTURE(s.n);
        CAPTURE(s.k);
        CAPTURE(name_of(dtype));
        CAPTURE(form);
        Tensor a = random(ta ? Shape{s.k, s.m} : Shape{s.m, s.k}, 0, dtype);
        Tensor b = random(tb ? Shape{s.n, s.k} : Shape{s.k, s.n}, 1, dtype);
        Tensor bias = random({s.n}, 2, compute_type(dtype));
        Tensor c = random({s.m, s.n}, 3, dtype == DType::bf16 && accumulate ? DType::f32 : dtype);
        std::vector<double> expected = to_vector(c), va = to_vector(a), vb = to_vector(b),
                            vbias = to_vector(bias);
        for (int64_t i = 0; i < s.m; i++) {
          for (int64_t j = 0; j < s.n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < s.k; p++)
              sum += at(va, i, p, s.k, ta, s.m) * at(vb, p, j, s.n, tb, s.k);
            double& out = expected[size_t(i * s.n + j)];
            out = (accumulate ? out : 0) + 0.5 * sum + vbias[size_t(j)];
          }
        }
        ops::matmul(a, b, {c, accumulate},
                    {.transpose_a = ta, .transpose_b = tb, .alpha = 0.5, .bias = bias});
        check_close(to_vector(c), expected, tolerance(dtype) * 4);
      }
    }
  }
}

TEST_CASE("matmul: strided rows equal copies, empty inner dimension gives zero") {
  Tensor wide = random({20, 90}, 2), right = random({30, 10}, 3), narrow({20, 30}), y({20, 10}),
         z({20, 10});
  ops::copy(wide.columns(30, 60), narrow);
  ops::matmul(wide.columns(30, 60), right, {y}, {});
  ops::matmul(narrow, right, {z}, {});
  CHECK(to_vector(y) == to_vector(z));
  ops::matmul(Tensor({4, 0}), Tensor({0, 5}), {y = random({4, 5}, 4)}, {});
  CHECK(to_vector(y) == std::vector<double>(20, 0.0));
  CHECK_THROWS_WITH(ops::matmul(Tensor({4, 8}), Tensor({6, 2}), {y}, {}),
                    doctest::Contains("fp32 (4, 8) cpu x fp32 (6, 2) cpu"));
}

TEST_CASE(
    "attention equals the formula, for head sizes around a vector and lengths around a block") {
  for (int64_t size : {1, 8, 16, 20, 64, 128}) {
    for (int64_t time : {1, 7, 32, 33, 64, 65, 130}) {
      CAPTURE(size);
      CAPTURE(time);
      int64_t heads = 2, width = heads * size;
      Tensor qkv = random({2, time, 3 * width}, uint64_t(size), DType::f32, -2, 2),
             y({2, time, width}), lse({2, heads, time});
      ops::attention(heads, qkv, y, lse);
      std::vector<double> x = to_vector(qkv), expected(size_t(2 * time * width));
      for (int64_t b = 0; b < 2; b++) {
        for (int64_t h = 0; h < heads; h++) {
          for (int64_t t = 0; t < time; t++) {
            auto entry = [&](int64_t row, int64_t part, int64_t d) {
              return x[size_t((b * time + row) * 3 * width + part * width + h * size + d)];
            };
            std::vector<double> score(size_t(t + 1));
            double top = -INFINITY, total = 0;
            for (int64_t s = 0; s <= t; s++) {
              for (int64_t d = 0; d < size; d++)
                score[size_t(s)] += entry(t, 0, d) * entry(s, 1, d) / std::sqrt(double(size));
              top = std::max(top, score[size_t(s)]);
            }
            for (double& v : score) total += v = std::exp(v - top);
            for (int64_t s = 0; s <= t; s++) {
              for (int64_t d = 0; d < size; d++)
                expected[size_t((b * time + t) * width + h * size + d)] +=
                    score[size_t(s)] / total * entry(s, 2, d);
            }
          }
        }
      }
      check_close(to_vector(y), expected, 5e-6);
    }
  }
}

TEST_CASE("elementwise ops on strided rows equal the same on copies") {
  Tensor wide = random({5, 40}, 0, DType::f32, 0.5, 1.5), a = wide.columns(3, 20), copy(a.shape()),
         y(a.shape()), z(a.shape());
  ops::copy(a, copy);
  ops::map(unary::gelu, a, y);
  ops::map(unary::gelu, copy, z);
  CHECK(to_vector(y) == to_vector(z));
  Tensor other = random({5, 17}, 1, DType::f32, 0.5, 1.5);
  ops::zip(binary::div, a, other, y);
  ops::zip(binary::div, copy, other, z);
  CHECK(to_vector(y) == to_vector(z));
  CHECK(sum_of(a) == doctest::Approx(sum_of(copy)));
}

TEST_CASE(
    "random numbers are a function of seed, stream and place; Philox gives its published answer") {
  Philox zero(0, 0, 0);  // Salmon et al., known answers: counter 0, key 0
  CHECK(zero.x[0] == 0x6627e8d5u);
  CHECK(zero.x[1] == 0xe169c58du);
  CHECK(zero.x[2] == 0xbc57ac4cu);
  CHECK(zero.x[3] == 0x9b00dbd8u);
  Tensor a({100001}), b({50}), n({100001});
  ops::random_uniform(5, 9, 0, 1, a);
  ops::random_uniform(5, 9, 0, 1, b);
  CHECK(to_vector(a.slice(0, 50)) == to_vector(b));
  ops::random_uniform(5, 10, 0, 1, b);
  CHECK(to_vector(a.slice(0, 50)) != to_vector(b));
  ops::random_normal(5, 9, 1, 2, n);
  CHECK(sum_of(n) / 100001 == doctest::Approx(1).epsilon(0.02));
  CHECK(squares_of(n) / 100001 == doctest::Approx(5).epsilon(0.03));
}

TEST_CASE("matmul: the same bits on any number of threads, alone and in any bank") {
  struct Size {
    int64_t m, n, k;
    bool symmetric = false;
  };
  int before = omp_get_max_threads();
  // A few rows, orthogonalisation at the widths of nano and baby, and gpt2's longest sums.
  for (Size s :
       {Size{1, 384, 384}, Size{7, 384, 1024}, Size{64, 33, 384}, Size{128, 128, 512, true},
        Size{128, 512, 128}, Size{384, 384, 1152, true}, Size{64, 768, 3072}}) {
    for (DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      if (dtype == DType::f64 && s.m * s.n * s.k > 4000000) continue;
      for (int turned = 0; turned < 4; turned++) {
        MatmulForm form{.transpose_a = bool(turned & 1),
                        .transpose_b = bool(turned & 2),
                        .alpha = 0.02,
                        .symmetric = s.symmetric};
        if (s.symmetric && form.transpose_a == form.transpose_b) continue;
        CAPTURE(s.m);
        CAPTURE(s.n);
        CAPTURE(s.k);
        CAPTURE(std::string(name_of(dtype)));
        CAPTURE(turned);
        Tensor a = random(form.transpose_a ? Shape{12, s.k, s.m} : Shape{12, s.m, s.k}, 0, dtype),
               b = random(form.transpose_b ? Shape{12, s.n, s.k} : Shape{12, s.k, s.n}, 1, dtype);
        if (s.symmetric) b = a;
        auto last_of = [&](int64_t count, int threads) {
          omp_set_num_threads(threads);
          Tensor c({count, s.m, s.n}, dtype);
          ops::matmul(a.slice(12 - count, 12), b.slice(12 - count, 12), {c}, form);
          return c.slice(count - 1, count);
        };
        omp_set_num_threads(1);
        Tensor alone({s.m, s.n}, dtype);
        ops::matmul(a.slice(11, 12).view({a.shape()[1], a.shape()[2]}),
                    b.slice(11, 12).view({b.shape()[1], b.shape()[2]}), {alone}, form);
        for (int64_t count : {1, 2, 4, 12}) {
          CAPTURE(count);
          for (int threads : count == 1 ? std::vector{1, 2, 3, 5, 8, 16} : std::vector{1, 5}) {
            CAPTURE(threads);
            CHECK(std::memcmp(last_of(count, threads).raw(), alone.raw(), alone.bytes()) == 0);
          }
        }
      }
    }
  }
  omp_set_num_threads(before);
}

TEST_CASE("adam_update is adam of the clipped gradient, then apply_update") {
  for (DType dtype : {DType::f32, DType::f64}) {
    for (bool cautious : {false, true}) {
      for (bool shadowed : {false, true}) {
        const Shape shape{3, 70, 31};
        auto begin = [&](uint64_t stream, double low) { return random(shape, stream, dtype, low); };
        Tensor g = begin(0, -1), clipped(shape, dtype), d(shape, dtype);
        Tensor m[2] = {begin(1, -1), begin(1, -1)}, v[2] = {begin(2, 0), begin(2, 0)},
               w[2] = {begin(3, -1), begin(3, -1)}, shadow[2];
        for (Tensor& s : shadow) s = shadowed ? Tensor(shape, DType::bf16) : Tensor();
        Factor clip{1, Tensor::of({0.25}, {1}, DType::f64)},
            rate{0.1, Tensor::of({0.5}, {1}, DType::f64)};
        Tensor step = Tensor::of({3}, {1}, DType::f64);
        ops::adam_update(clip, g, m[0], v[0], 0.9, 0.99, 1e-8, step, rate, 0.2, cautious, w[0],
                         shadow[0]);
        ops::scale(clip, g, {clipped});
        ops::adam(clipped, m[1], v[1], d, 0.9, 0.99, 1e-8, step);
        ops::apply_update(rate, 0.2, cautious, d, w[1], shadow[1]);
        for (auto& pair : {m, v, w})
          check_close(to_vector(pair[0]), to_vector(pair[1]), tolerance(dtype));
        if (shadowed) {
          Tensor rounded(shape, DType::bf16);
          ops::copy(w[0], rounded);
          CHECK(to_vector(shadow[0]) == to_vector(rounded));
        }
      }
    }
  }
}

TEST_CASE("one thread and many give the same bits") {
  auto run = [] {
    std::vector<Tensor> results;
    for (DType dtype : {DType::f32, DType::bf16}) {
      Tensor x = random({3, 70, 96}, 0, dtype), w = random({130, 96}, 1, dtype),
             dy = random({210, 130}, 2, dtype);
      Tensor y({3, 70, 130}, dtype), dw({130, 96}), qkv = random({3, 70, 96}, 3, dtype),
                                                    a({3, 70, 32}, dtype);
      Tensor lse({3, 2, 70}), d({3, 70, 96}, dtype), bias({130}), stats({210, 2}),
          norm({3, 70, 96}, dtype), none, gain({96});
      ops::fill(gain, 1.5);
      ops::matmul(x, w, {y}, {.transpose_b = true});
      ops::matmul(dy, x.view({210, 96}), {dw}, {.transpose_a = true});
      ops::attention(2, qkv, a, lse);
      ops::attention_backward(2, qkv, a, lse, a, {d});
      ops::sum_rows(dy, {bias});
      ops::norm(Norm::layer, x, {}, gain, {}, none, norm, stats);
      for (const Tensor& t : {y, dw, a, lse, d, bias, norm}) results.push_back(t);
      results.push_back(Tensor::of({sum_of(x), squares_of(dy)}, {2}, DType::f64));
    }
    Tensor big_a = random({1000, 300}, 5), big_b = random({1000, 200}, 6), product({300, 200});
    ops::matmul(big_a, big_b, {product},
                {.transpose_a = true});  // a weight gradient: long inner dimension
    results.push_back(product);
    return results;
  };
  int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  auto one = run();
  for (int n : {2, 3, 5, 8, 16}) {
    omp_set_num_threads(n);
    auto many = run();
    for (size_t i = 0; i < one.size(); i++) {
      CAPTURE(n);
      CAPTURE(i);
      CHECK(std::memcmp(one[i].raw(), many[i].raw(), one[i].bytes()) == 0);
    }
  }
  omp_set_num_threads(threads);
}

TEST_CASE("an exception in a worker reaches the caller") {
  auto fail_at = [](int64_t wanted) {
    return [=](int64_t at, auto...) { check(at != wanted, "the last of them"); };
  };
  CHECK_THROWS_WITH_AS(parallel_tasks(9, fail_at(8)), "the last of them", Error);
  CHECK_THROWS_WITH_AS(parallel_for(9, 1, fail_at(8)), "the last of them", Error);
}

TEST_CASE("tensors without elements are left as they are by every function of two numbers") {
  Tensor none({0});
  ops::zip(binary::maximum, none, none, none);
  ops::zip_backward(binary::div, false, none, none, none, {none});
  ops::scale(2, none, {none});
  CHECK(none.numel() == 0);
}

TEST_CASE("attention to huge scores is attention to the largest, and its gradients are finite") {
  Tensor qkv({1, 40, 48}), y({1, 40, 16}), lse({1, 2, 40}), dy({1, 40, 16}), d({1, 40, 48});
  ops::random_normal(1, 0, 0, 3e8, qkv);
  ops::random_normal(1, 1, 0, 1, dy);
  ops::attention(2, qkv, y, lse);
  ops::attention_backward(2, qkv, y, lse, dy, {d});
  const std::vector<double> in = to_vector(qkv), out = to_vector(y);
  for (int64_t t = 0; t < 40; t++) {
    for (int64_t h = 0; h < 2; h++) {
      int64_t best = 0;
      double top = -INFINITY;
      for (int64_t u = 0; u <= t; u++) {
        double score = 0;
        for (int64_t j = 0; j < 8; j++)
          score += in[size_t(t * 48 + h * 8 + j)] * in[size_t(u * 48 + 16 + h * 8 + j)];
        if (score > top) top = score, best = u;
      }
      for (int64_t j = 0; j < 8; j++)
        CHECK(out[size_t(t * 16 + h * 8 + j)] ==
              doctest::Approx(in[size_t(best * 48 + 32 + h * 8 + j)]).epsilon(1e-5));
    }
  }
  for (double v : to_vector(d)) CHECK(std::isfinite(v));
}
