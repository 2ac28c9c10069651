// tests/cuda/mix_test.cpp - mixing with any number of neighbours, and numbers packed as bytes.
#include "tensor/ops.h"
#include "tests/cuda/pairs.h"

namespace murmur {
namespace {

// Elements, and where they begin in memory: at 1 no access can be wide.
struct Layout {
  int64_t n, begin;
};
const Layout kLayouts[] = {{1, 0},  {4, 0},   {63, 0},   {64, 0},
                           {65, 0}, {130, 1}, {1000, 0}, {2050, 4}};

// In the middle of a longer tensor, all of which is compared.
Pair part_of(Pair whole, const Layout& layout) {
  whole.host = whole.whole_host.slice(layout.begin, layout.begin + layout.n);
  whole.device = whole.whole_device.slice(layout.begin, layout.begin + layout.n);
  return whole;
}
Pair numbers(const Layout& layout, DType dtype, uint64_t seed) {
  return part_of(values({layout.begin + layout.n + 3}, dtype, seed), layout);
}

Pair words(int64_t n) {
  Tensor x({packed_words(n)}, DType::i32);
  std::memset(x.raw(), 0x55, x.bytes());
  return pair_of(x);
}

}  // namespace

TEST_CASE("cuda: mix, with more neighbours than a launch takes, too") {
  for (DType wire : kSingle) {
    for (size_t neighbours : {0, 1, 3, 127, 128, 129, 300}) {
      for (const Layout& layout : kLayouts) {
        if (neighbours > 3 && layout.n > 200) continue;
        for (bool in_place : {false, true}) {
          CAPTURE(name_of(wire));
          CAPTURE(neighbours);
          CAPTURE(layout.n);
          Pair x = numbers(layout, DType::f32, 1), own = numbers(layout, wire, 2);
          Pair y = in_place ? x : numbers(layout, DType::f32, 3);
          std::vector<Pair> theirs;
          std::vector<double> weights;
          for (size_t j = 0; j < neighbours; j++) {
            theirs.push_back(numbers(layout, wire, 4 + j));
            weights.push_back(1 / double(neighbours + 1 + j));
          }
          on_both([&](Device d) {
            std::vector<Tensor> sent;
            for (const Pair& their : theirs) sent.push_back(their.on(d));
            ops::mix(x.on(d), own.on(d), sent, weights, y.on(d));
          });
          check_equal(y);
        }
      }
    }
  }
}

TEST_CASE("cuda: mix of x with x as its own wire copy") {
  Pair x = values({1000}, DType::f32, 1), their = values({1000}, DType::f32, 2);
  on_both([&](Device d) {
    ops::mix(x.on(d), x.on(d), {their.on(d), x.on(d)}, {0.25, 0.5}, x.on(d));
  });
  check_equal(x);
}

TEST_CASE("cuda: mix is for fp32 with fp32 or bf16 on the wire") {
  Tensor x({4}, DType::f32, Device::cuda), half({4}, DType::bf16, Device::cuda);
  Tensor wide({4}, DType::f64, Device::cuda);
  CHECK_THROWS_AS(ops::mix(wide, wide, {}, {}, wide), Error);
  CHECK_THROWS_AS(ops::mix(half, half, {}, {}, half), Error);
  CHECK_THROWS_AS(ops::mix(x, wide, {}, {}, x), Error);
  CHECK_THROWS_AS(ops::mix(x, half, {half}, {}, x), Error);
}

TEST_CASE(
    "cuda: packed bytes and scales are the bits of the CPU, and so is what they come back as") {
  for (DType dtype : kSingle) {
    for (const Layout& layout : kLayouts) {
      for (double size : {1.0, 1e-37, 1e-41, 3e37, 0.0}) {
        CAPTURE(name_of(dtype));
        CAPTURE(layout.n);
        CAPTURE(size);
        Pair x = numbers(layout, dtype, 1), packed = words(layout.n);
        Pair y = numbers(layout, dtype, 2);
        on_both([&](Device d) {
          ops::scale(size, x.on(d), {x.on(d)});
          if (d == Device::cuda) ops::copy(x.host, x.device);
          ops::quantize(x.on(d), packed.on(d));
          ops::dequantize(packed.on(d), y.on(d));
        });
        CHECK(same_bits(packed.device, packed.host));
        CHECK(same_bits(y.whole_device, y.whole_host));
      }
    }
  }
}

TEST_CASE("cuda: a block with NaN or infinity comes back as NaN, its neighbours do not") {
  for (float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
    Pair x = values({130}, DType::f32, 1), packed = words(130), y = result({130}, DType::f32);
    x.host.data<float>()[70] = bad;
    ops::copy(x.host, x.device);
    on_both([&](Device d) {
      ops::quantize(x.on(d), packed.on(d));
      ops::dequantize(packed.on(d), y.on(d));
    });
    std::vector<double> got = to_vector(y.device), expected = to_vector(y.host);
    for (size_t i = 0; i < got.size(); i++) {
      CAPTURE(i);
      CHECK(std::isnan(got[i]) == (i / 64 == 1));
      CHECK((std::isnan(got[i]) || got[i] == expected[i]));
    }
  }
}

TEST_CASE("cuda: mix and quantize give the same bits in any order of threads") {
  Tensor x = on_gpu(random({1000}, DType::f32, 1)), their = on_gpu(random({1000}, DType::f32, 2));
  check_repeatable([&] {
    Tensor y = poisoned({1000}, DType::f32), packed({packed_words(1000)}, DType::i32, Device::cuda);
    ops::mix(x, x, {their, their}, {0.25, 0.125}, y);
    ops::quantize(y, packed);
    return packed;
  });
}

TEST_CASE("cuda: nothing to mix or to pack launches nothing") {
  Tensor x({0}, DType::f32, Device::cuda), packed({0}, DType::i32, Device::cuda);
  ops::mix(x, x, {x}, {1}, x);
  ops::quantize(x, packed);
  ops::dequantize(packed, x);
}

}  // namespace murmur
