// tests/tensor/edges.h - NaN, infinities and the largest numbers in what an engine does beside the
// functions of ops.def.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tensor/ops.h"
#include "tensor/scalar.h"

namespace murmur {

inline size_t count_nan(const Tensor& x) {
  size_t count = 0;
  for (double v : to_vector(x)) count += std::isnan(v);
  return count;
}

inline void check_engine_edges(Device device) {
  auto tensor = [=](const std::vector<double>& values, Shape shape, DType dtype = DType::f32) {
    return to(device, Tensor::of(values, shape, dtype));
  };
  auto empty = [=](Shape shape, DType dtype = DType::f32) { return Tensor(shape, dtype, device); };
  auto random = [=](Shape shape) {
    Tensor x(shape, DType::f32, device);
    ops::random_normal(3, 0, 0, 1, x);
    return x;
  };
  constexpr double kInfinity = std::numeric_limits<double>::infinity();

  // a maximum: the second head's key of time 1 is NaN, the first head's were NaN before
  std::vector<double> packed = to_vector(random({1, 3, 24}));
  packed[24 + 8 + 5] = NAN;
  Tensor top = tensor({-kInfinity, -kInfinity}, {2});
  ops::largest_scores(2, tensor(packed, {1, 3, 24}), top);
  CHECK(std::isfinite(to_vector(top)[0]));
  CHECK(std::isnan(to_vector(top)[1]));
  top = tensor({NAN, 1}, {2});
  ops::largest_scores(2, random({1, 3, 24}), top);
  CHECK(count_nan(top) == 1);

  // a minimum
  for (bool exactly : {false, true}) {
    Tensor factor = empty({1}, DType::f64);
    ops::clip_factor(tensor({NAN}, {1}, DType::f64), 1, exactly, factor);
    CHECK(std::isnan(item(factor)));
    ops::clip_factor(tensor({kInfinity}, {1}, DType::f64), 1, exactly, factor);
    CHECK(item(factor) == 0);
  }

  // sums, and what is made from them
  for (double odd : {double(NAN), kInfinity}) {
    CAPTURE(odd);
    auto with_odd = [&](Shape shape) {
      std::vector<double> values = to_vector(random(shape));
      values[values.size() / 2] = odd;
      return tensor(values, shape);
    };
    Tensor x = with_odd({2, 5, 3}), one = empty({1}, DType::f64);
    ops::sum(1, x, one);
    CHECK(!std::isfinite(item(one)));
    ops::sum_of_squares(x, one);
    CHECK(!std::isfinite(item(one)));
    Tensor columns = empty({3}), factors = empty({2}), squared = empty({2});
    ops::sum_rows(x.view({10, 3}), {columns});
    CHECK(!std::isfinite(to_vector(columns)[0]));
    ops::normalizers(x, 1e-8, factors, squared);
    ops::scale({1, factors}, x, {x});
    CHECK(count_nan(x) > 0);
    CHECK(count_nan(x.slice(0, 1)) == 0);
    Tensor basis = empty({1, 5, 3});
    ops::orthonormal_columns(with_odd({1, 5, 3}), basis);  // the odd one is in column 1
    CHECK(count_nan(basis) == 10);
    Tensor q = empty({packed_words(130)}, DType::i32), y = empty({130});
    ops::quantize(with_odd({130}), q);  // in the second block of 64
    ops::dequantize(q, y);
    CHECK(count_nan(y) == 64);
  }

  // updates
  Tensor g = tensor({1, NAN, -1}, {3}), m = tensor({1, 1, 1}, {3}), v = tensor({1, 1, 1}, {3}),
         d = empty({3}), none;
  for (bool cautious : {false, true}) {
    Tensor w = tensor({1, 1, 1}, {3});
    ops::apply_update(0.1, 0.1, cautious, g, w, none);
    CHECK(count_nan(w) == 1);
  }
  ops::momentum(g, m, d, 0.9, 0.1, 0.9, 0.1);
  CHECK(count_nan(d) == 1);
  ops::adam(g, m, v, d, 0.9, 0.99, 1e-8, tensor({1}, {1}, DType::f64));
  CHECK(count_nan(d) == 1);
  CHECK(count_nan(v) == 1);
  ops::lerp(0.5, g, d);
  CHECK(count_nan(d) == 1);

  // NaN of every kind as bf16: rounding up must not carry it into another number
  std::vector<float> kinds;
  for (uint32_t bits : {0x7f800001u, 0x7fffffffu, 0xff800001u, 0xffffffffu, 0x7fc00000u})
    kinds.push_back(bit_cast<float>(bits));
  Tensor all({int64_t(kinds.size())}, DType::f32), rounded = empty(all.shape(), DType::bf16);
  std::copy(kinds.begin(), kinds.end(), all.data<float>());
  ops::copy(to(device, all), rounded);
  CHECK(count_nan(rounded) == kinds.size());

  // losses of logits that share an offset, near the end of fp32, too
  double want = std::log(1 + std::exp(1.0) + std::exp(-2.0) + std::exp(3.0)) - 1;
  for (double offset : {0.0, 1e4, -1e4, 1e6}) {
    CAPTURE(offset);
    Tensor logits = tensor({offset, offset + 1, offset - 2, offset + 3}, {1, 4}), loss = empty({1});
    ops::cross_entropy(logits, tensor({1}, {1}, DType::i32), loss, true, 4);
    CHECK(item(loss) == doctest::Approx(want).epsilon(1e-6));
  }
  for (double all_of_them : {3e38, -3e38}) {
    CAPTURE(all_of_them);
    Tensor logits = tensor(std::vector<double>(4, all_of_them), {1, 4}), loss = empty({1});
    ops::cross_entropy(logits, tensor({1}, {1}, DType::i32), loss, true, 4);
    CHECK(item(loss) == doctest::Approx(std::log(4.0)).epsilon(1e-6));
    CHECK(to_vector(logits)[0] == 0.25);
  }
  // with -infinity for all there is no loss, with +infinity for one neither
  for (double first : {-kInfinity, kInfinity}) {
    Tensor logits = tensor({first, -kInfinity, -kInfinity, -kInfinity}, {1, 4}), loss = empty({1});
    ops::cross_entropy(logits, tensor({1}, {1}, DType::i32), loss, true, 4);
    CHECK(std::isnan(item(loss) - item(loss)));
    CHECK(count_nan(logits) > 0);
  }
}

}  // namespace murmur
