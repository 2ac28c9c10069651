// tests/tensor/mix_test.cpp - mixing against a plain loop in double, what gossip must keep, and how
// much a number loses on its way through a byte.
#include <doctest/doctest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/ops.h"
#include "tensor/ops/quantize.h"

using namespace murmur;

namespace {

Tensor random(int64_t n, uint64_t stream, DType dtype = DType::f32, double deviation = 1) {
  Tensor wide({n}, DType::f64), x({n}, dtype);
  ops::random_normal(11, stream, 0, deviation, wide);
  ops::copy(wide, x);
  return x;
}

Tensor copy_of(const Tensor& x, DType dtype) {
  Tensor y(x.shape(), dtype);
  ops::copy(x, y);
  return y;
}
Tensor copy_of(const Tensor& x) { return copy_of(x, x.dtype()); }

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

// What a rank sends to some others, and they to it.
struct Exchange {
  Tensor own;
  std::vector<Tensor> theirs;
  std::vector<double> weights;
};

Exchange exchange(const Tensor& x, DType wire, int64_t neighbours) {
  Exchange all{copy_of(x, wire), {}, {}};
  for (int64_t j = 0; j < neighbours; j++) {
    all.theirs.push_back(random(x.numel(), uint64_t(100 + j), wire));
    all.weights.push_back(1.0 / double(neighbours + 1 + j));
  }
  return all;
}

Tensor mixed(const Tensor& x, const Exchange& sent) {
  Tensor y(x.shape(), x.dtype());
  ops::fill(y, NAN);
  ops::mix(x, sent.own, sent.theirs, sent.weights, y);
  return y;
}

Tensor through_bytes(const Tensor& x) {
  Tensor packed({packed_words(x.numel())}, DType::i32), y(x.shape(), DType::f32);
  ops::quantize(x, packed);
  ops::dequantize(packed, y);
  return y;
}

// Calls f with one thread and with several; every result must have the bits of the first.
template <class F>
void check_threads(const F& f) {
  int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  Tensor one = f();
  for (int n : {2, 3, 5}) {
    omp_set_num_threads(n);
    CAPTURE(n);
    CHECK(same_bits(f(), one));
  }
  omp_set_num_threads(threads);
}

const DType kStates[] = {DType::f32, DType::f64}, kWires[] = {DType::f32, DType::f64, DType::bf16};
const int64_t kSizes[] = {0, 1, 5, 63, 64, 65, 255, 256, 257, 5003};

}  // namespace

TEST_CASE("mix equals a plain loop, for any number of neighbours, size, state and wire") {
  for (DType state : kStates) {
    for (DType wire : kWires) {
      for (int64_t neighbours : {0, 1, 3, 63, 300}) {
        for (int64_t n : kSizes) {
          CAPTURE(name_of(state));
          CAPTURE(name_of(wire));
          CAPTURE(neighbours);
          CAPTURE(n);
          Tensor x = random(n, 1, state);
          Exchange sent = exchange(x, wire, neighbours);
          std::vector<double> expected = to_vector(x), own = to_vector(sent.own);
          for (size_t j = 0; j < sent.theirs.size(); j++) {
            std::vector<double> their = to_vector(sent.theirs[j]);
            for (size_t i = 0; i < own.size(); i++)
              expected[i] += sent.weights[j] * (their[i] - own[i]);
          }
          std::vector<double> got = to_vector(mixed(x, sent));
          double worst = 0;
          for (size_t i = 0; i < got.size(); i++) {
            double error = std::fabs(got[i] - expected[i]);
            worst = error <= worst ? worst : error;  // NaN stays
          }
          CHECK(worst <= (state == DType::f64 ? 1e-13 : 4e-6));
        }
      }
    }
  }
}

TEST_CASE("a ring of four: the known trace") {
  std::vector<Tensor> x;
  for (double value : {0, 4, 8, 12}) x.push_back(Tensor::of({value}, {1}, DType::f64));
  for (auto expected :
       {std::vector<double>{16.0 / 3, 4, 8, 20.0 / 3}, {48.0 / 9, 52.0 / 9, 56.0 / 9, 60.0 / 9}}) {
    std::vector<Tensor> next;
    for (size_t i = 0; i < 4; i++)
      next.push_back(mixed(x[i], {x[i], {x[(i + 1) % 4], x[(i + 3) % 4]}, {1.0 / 3, 1.0 / 3}}));
    x = next;
    for (size_t i = 0; i < 4; i++) CHECK(item(x[i]) == doctest::Approx(expected[i]).epsilon(1e-14));
  }
}

TEST_CASE("symmetric weights keep the mean, whatever is on the wire") {
  const size_t ranks = 6;
  const int64_t n = 100;
  for (DType state : kStates) {
    for (const char* wire : {"fp32", "bf16", "int8"}) {
      CAPTURE(name_of(state));
      CAPTURE(wire);
      std::vector<double> w = to_vector(random(ranks * ranks, 7, DType::f64, 0.05));
      std::vector<Tensor> x;
      for (size_t i = 0; i < ranks; i++) x.push_back(random(n, 20 + i, state));
      auto mean = [&] {
        std::vector<double> sum(n);
        for (const Tensor& of_rank : x) {
          std::vector<double> values = to_vector(of_rank);
          for (size_t k = 0; k < values.size(); k++) sum[k] += values[k] / double(ranks);
        }
        return sum;
      };
      auto spread = [&] { return std::fabs(to_vector(x[0])[0] - to_vector(x[1])[0]); };
      std::vector<double> before = mean();
      double apart = spread();
      for (int round = 0; round < 100; round++) {
        std::vector<Tensor> sent, next;
        for (const Tensor& of_rank : x) {
          sent.push_back(wire == std::string("int8")   ? through_bytes(of_rank)
                         : wire == std::string("bf16") ? copy_of(of_rank, DType::bf16)
                                                       : copy_of(of_rank, DType::f32));
        }
        for (size_t i = 0; i < ranks; i++) {
          Exchange of_rank{sent[i], {}, {}};
          for (size_t j = 0; j < ranks; j++) {
            if (j == i) continue;
            of_rank.theirs.push_back(sent[j]);
            of_rank.weights.push_back(std::fabs(w[std::min(i, j) * ranks + std::max(i, j)]));
          }
          next.push_back(mixed(x[i], of_rank));
        }
        x = next;
      }
      std::vector<double> after = mean();
      double drift = 0;
      for (size_t k = 0; k < after.size(); k++)
        drift = std::max(drift, std::fabs(after[k] - before[k]));
      CHECK(drift <= (state == DType::f64 ? 1e-13 : 2e-6));
      CHECK(spread() < 0.05 * apart);
    }
  }
}

TEST_CASE("mix in place, and of what is its own wire copy, gives the same bits") {
  for (DType state : kStates) {
    Tensor x = random(5003, 1, state);
    Exchange apart = exchange(x, state, 4), shared = apart;
    shared.own = x;
    Tensor expected = mixed(x, apart);
    CHECK(same_bits(mixed(x, shared), expected));
    ops::mix(x, shared.own, shared.theirs, shared.weights, x);
    CHECK(same_bits(x, expected));
  }
}

TEST_CASE("mix: equal numbers stay as they are, and without neighbours all do") {
  Tensor x = random(1000, 1);
  CHECK(same_bits(mixed(x, {x, {x, x, x}, {0.3, 0.3, 0.3}}), x));
  CHECK(same_bits(mixed(x, {x, {}, {}}), x));
}

TEST_CASE("mix, quantize, dequantize: one thread and many give the same bits") {
  for (int64_t neighbours : {2, 300}) {
    for (DType wire : kWires) {
      Tensor x = random(100003, 1);
      Exchange sent = exchange(x.slice(0, neighbours == 2 ? 100003 : 10003), wire, neighbours);
      check_threads([&] { return mixed(x.slice(0, sent.own.numel()), sent); });
    }
  }
  Tensor x = random(100003, 2), packed({packed_words(100003)}, DType::i32);
  check_threads([&] {
    ops::quantize(x, packed);
    return copy_of(packed);
  });
  check_threads([&] { return through_bytes(x); });
}

TEST_CASE("mix: what does not fit is refused") {
  Tensor x({4}), longer({5}), half({4}, DType::bf16), y({4});
  CHECK_THROWS_WITH(ops::mix(x, x, {x}, {0.5, 0.5}, y), "mix: 1 neighbours, 2 weights");
  CHECK_THROWS_WITH(ops::mix(x, longer, {longer}, {1}, y), doctest::Contains("fp32 (5) cpu"));
  CHECK_THROWS_WITH(ops::mix(x, x, {half}, {1}, y), doctest::Contains("bf16 (4) cpu"));
  CHECK_THROWS_WITH(ops::mix(half, half, {half}, {1}, half), doctest::Contains("fp32 or fp64"));
  Tensor rows = Tensor({2, 4}).columns(0, 2), flat({2, 2});
  CHECK_THROWS_WITH(ops::mix(flat, rows, {}, {}, flat), doctest::Contains("lie apart"));
}

// ------------------------------------------------------------------------------------ bytes

TEST_CASE("a block's scale is the least that reaches its largest number") {
  for (int exponent = -149; exponent < 128; exponent++) {
    for (int k = 0; k < 64; k++) {
      float largest = std::ldexp(1 + float(k * k * k) / 262144, exponent);
      if (exponent == 127 && largest > Quantize::kMost) continue;
      CAPTURE(largest);
      Quantize quantize(largest);
      bf16 smaller = quantize.scale;
      smaller.bits--;
      CHECK(double(largest) <= 127 * double(quantize.scale));
      CHECK((double(quantize.scale) == 0x1p-126 || double(largest) > 127 * double(smaller)));
      CHECK(std::isfinite(127 * float(quantize.scale)));
      CHECK(std::abs(quantize(-largest)) <= 127);
    }
  }
  CHECK(127 * float(Quantize(Quantize::kMost).scale) == Quantize::kMost);
  for (float largest : {std::nextafter(Quantize::kMost, INFINITY), INFINITY, NAN, -NAN})
    CHECK(std::isnan(float(Quantize(largest).scale)));
}

TEST_CASE("whole numbers up to 127 come back as they were, in words known by hand") {
  std::vector<double> numbers = {127, -127, 1, 0, -1, 2};
  Tensor x = Tensor::of(numbers, {6}), packed({packed_words(6)}, DType::i32);
  REQUIRE(packed.numel() == 3);
  ops::quantize(x, packed);
  const int32_t* words = packed.data<int32_t>();
  CHECK(words[0] == 0x0001817f);
  CHECK(words[1] == 0x000002ff);  // two bytes are left
  CHECK(words[2] == 0x00003f80);  // 1 in bf16, and no second scale
  CHECK(to_vector(through_bytes(x)) == numbers);
}

TEST_CASE("through a byte and back: half a scale of error at most, zeros exact") {
  for (DType dtype : kWires) {
    for (double size : {1.0, 1e-30, 1e30, 1e-38, 1e-41}) {
      for (int64_t n : kSizes) {
        CAPTURE(name_of(dtype));
        CAPTURE(size);
        CAPTURE(n);
        Tensor x = random(n, 3, dtype, size);
        Tensor zeros = x.slice(0, n > 64 ? 64 : 0);
        ops::fill(zeros, 0);
        std::vector<double> before = to_vector(x), after = to_vector(through_bytes(x));
        for (int64_t begin = 0; begin < n; begin += kQuantizedBlock) {
          double largest = 0, worst = 0;
          size_t end = size_t(std::min(n, begin + kQuantizedBlock));
          for (size_t i = size_t(begin); i < end; i++) {
            largest = std::max(largest, std::fabs(double(float(before[i]))));
            worst = std::max(worst, std::fabs(after[i] - before[i]));
            if (before[i] == 0) CHECK(after[i] == 0);
          }
          // A scale in bf16 is up to 1/128 larger than it would have to be.
          double scale = std::max(0x1p-126, largest / 127 * (1 + 1.0 / 128));
          CHECK(worst <= scale * 0.5001);
        }
      }
    }
  }
}

TEST_CASE("the words do not depend on what was in memory, nor on the element type") {
  for (int64_t n : {1, 63, 65, 130, 5003}) {
    CAPTURE(n);
    Tensor x = random(n, 4, DType::bf16), first, packed({packed_words(n)}, DType::i32);
    for (DType dtype : kWires) {
      std::memset(packed.raw(), first ? 0xff : 0x55, packed.bytes());
      ops::quantize(copy_of(x, dtype), packed);
      if (!first) first = copy_of(packed);
      CHECK(same_bits(packed, first));
    }
  }
}

TEST_CASE("NaN and what is too large come back as NaN, with all of their block") {
  for (double bad : {double(NAN), double(INFINITY), -double(INFINITY), 3.4028e38}) {
    for (int64_t at : {0, 70, 129}) {
      CAPTURE(bad);
      CAPTURE(at);
      Tensor x = random(130, 5);
      x.data<float>()[at] = float(bad);
      std::vector<double> after = to_vector(through_bytes(x));
      for (int64_t i = 0; i < 130; i++)
        CHECK(std::isnan(after[size_t(i)]) == (i / kQuantizedBlock == at / kQuantizedBlock));
    }
  }
  Tensor large = Tensor::of({1e300}, {1}, DType::f64);  // infinite in fp32
  CHECK(std::isnan(item(through_bytes(large))));
}

TEST_CASE("packed tensors of another size or type are refused") {
  Tensor x({100}), packed({packed_words(100)}, DType::i32), floats({packed_words(100)});
  CHECK(packed_words(100) == 26);
  CHECK_THROWS_WITH(ops::quantize(x, floats), doctest::Contains("in 26 words"));
  CHECK_THROWS_WITH(ops::dequantize(Tensor({25}, DType::i32), x), doctest::Contains("in 26 words"));
  ops::quantize(x, packed);
}
