// tests/tensor/tensor_test.cpp - the tensor as a value: shapes, views, conversions, and memory that
// comes back.
#include "tensor/tensor.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "tensor/ops.h"

using namespace murmur;

TEST_CASE("a copy shares its storage; views look at the same numbers") {
  Tensor x = Tensor::of({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {3, 4});
  Tensor rows = x.slice(1, 3), columns = x.columns(1, 3), flat = x.view({2, 6});
  CHECK(to_vector(rows) == std::vector<double>{4, 5, 6, 7, 8, 9, 10, 11});
  CHECK(to_vector(columns) == std::vector<double>{1, 2, 5, 6, 9, 10});
  CHECK(!columns.contiguous());
  CHECK(columns.row_stride() == 4);
  ops::fill(columns, -1);
  CHECK(to_vector(x) == std::vector<double>{0, -1, -1, 3, 4, -1, -1, 7, 8, -1, -1, 11});
  CHECK(to_vector(flat.slice(1, 2)) == std::vector<double>{-1, 7, 8, -1, -1, 11});
  CHECK(x.shares_storage_with(flat));
  CHECK(!x.unique());
}

TEST_CASE("slices of one and three dimensions") {
  Tensor line = Tensor::of({0, 1, 2, 3, 4}, {5});
  CHECK(to_vector(line.slice(1, 4).slice(1, 3)) == std::vector<double>{2, 3});
  Tensor cube = Tensor::of({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {3, 2, 2});
  CHECK(to_vector(cube.slice(2, 3)) == std::vector<double>{8, 9, 10, 11});
  CHECK(cube.slice(1, 1).numel() == 0);
}

TEST_CASE("what does not fit is refused with the shapes in the message") {
  Tensor x({3, 4});
  CHECK_THROWS_WITH(x.view({5, 2}), "view: (3, 4) as (5, 2): 12 elements against 10");
  CHECK_THROWS_WITH(x.slice(2, 4), "slice: [2, 4) of (3, 4)");
  CHECK_THROWS_WITH(x.columns(0, 2).view({6}), doctest::Contains("do not touch"));
  CHECK_THROWS_AS(x.data<double>(), Error);
  CHECK_THROWS_AS(item(x), Error);
  CHECK_THROWS_WITH(Tensor::of({1, 2}, {3}), "tensor: 2 values for shape (3)");
  CHECK_THROWS_AS(Shape({1, 2, 3, 4, 5, 6}), Error);
  CHECK_THROWS_AS(Tensor({2}, DType::f32, Device::cuda), InputError);
}

TEST_CASE("bf16 rounds to nearest even and keeps infinities and NaN") {
  CHECK(float(bf16(1.f)) == 1.f);
  CHECK(float(bf16(1.00390625f)) == 1.f);        // half way: to even
  CHECK(float(bf16(1.01171875f)) == 1.015625f);  // half way: to even, upwards
  CHECK(float(bf16(1.004f)) == 1.0078125f);      // just above
  CHECK(float(bf16(3.4e38f)) == INFINITY);
  CHECK(float(bf16(-INFINITY)) == -INFINITY);
  CHECK(std::isnan(float(bf16(NAN))));
}

TEST_CASE("memory of one size is used again, and no other") {
  release_cached_memory();
  int64_t before = memory_stats().fresh_blocks, in_use = memory_stats().bytes_in_use;
  void* first;
  {
    Tensor a({123457});
    first = a.raw();
    CHECK(memory_stats().bytes_in_use - in_use >= 400000);
  }
  CHECK(memory_stats().bytes_in_use == in_use);
  Tensor b({123457}), c({123657}), d({250007});
  CHECK(b.raw() == first);
  CHECK(memory_stats().fresh_blocks - before == 3);  // a, c, d: b took over what a left
  CHECK(reinterpret_cast<uintptr_t>(d.raw()) % 64 == 0);
}

TEST_CASE("sizes that never come again do not pile up") {
  release_cached_memory();
  const int64_t cached = memory_stats().bytes_cached;  // beside blocks of other tests
  constexpr int64_t kStep = 1 << 16;  // bytes; from parts of a slab to blocks of their own
  auto in_use = [] { return memory_stats().bytes_in_use; };
  const int64_t before = in_use();
  Tensor kept({kStep}, DType::bf16);  // in a slab beside others
  int64_t most = 0;
  for (int64_t n = 1; n <= 256; n++) {
    Tensor a({n * kStep / 4}), b({n * kStep / 8});
    most = std::max(most, memory_stats().bytes_cached);
    if (n == 128) kept = Tensor({kStep}, DType::bf16);
  }
  CHECK(most <= std::max(memory_stats().peak_bytes, int64_t(64) << 20) + 256 * kStep);
  // Again and again the same: nothing is given back, and nothing asked for.
  int64_t blocks = 0;
  for (int i = 0; i < 3; i++) {
    if (i == 1) blocks = memory_stats().fresh_blocks;
    std::vector<Tensor> all;
    for (int64_t n = 1; n <= 64; n++) all.emplace_back(Shape({n * kStep / 4}));
  }
  CHECK(memory_stats().fresh_blocks == blocks);
  kept = Tensor();
  CHECK(in_use() == before);
  release_cached_memory();
  CHECK(memory_stats().bytes_cached <= cached);
}

TEST_CASE("threads share the cache safely") {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([t] {
      for (int i = 0; i < 500; i++) {
        Tensor x = Tensor::of({double(t), double(i)}, {2});
        CHECK(to_vector(x)[0] == t);
      }
    });
  }
  for (std::thread& t : threads) t.join();
}
