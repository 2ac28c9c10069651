// tests/cuda/gather_test.cpp - rows of a table by token, and the gradient: tokens that repeat
// within a chunk, across its border, over many chunks, or not at all.
#include "tensor/ops.h"
#include "tests/cuda/pairs.h"

namespace murmur {
namespace {

// Tokens of n / times texts; `spread` different ones, the first of them in every second place.
Tensor tokens_of(int64_t n, int64_t times, int64_t spread) {
  Tensor t({n / times, times}, DType::i32);
  for (int64_t i = 0; i < n; i++) {
    t.data<int32_t>()[i] = i % 2 ? int32_t(i * 7919 % 10007 % spread) : 0;
  }
  return t;
}

}  // namespace

TEST_CASE("cuda: gather, with and without positions") {
  for (DType dtype : kSingle) {
    for (int64_t cols : {1, 5, 24, 264}) {
      for (bool with_positions : {false, true}) {
        for (int64_t margin : {0, 1, 8}) {
          CAPTURE(cols);
          Pair table = values({11, cols}, dtype, 1, margin), tokens = pair_of(tokens_of(12, 4, 11));
          Pair positions = with_positions ? values({6, cols}, dtype, 2) : Pair{};
          Pair y = result({3, 4, cols}, dtype);
          on_both(
              [&](Device d) { ops::gather(table.on(d), tokens.on(d), positions.on(d), y.on(d)); });
          check_equal(y);
        }
      }
    }
  }
}

TEST_CASE("cuda: a token outside the table gives a row of NaN") {
  Tensor table = on_gpu(random({4, 8}, DType::bf16, 1)), y = poisoned({3, 8}, DType::bf16), none;
  Tensor tokens({1, 3}, DType::i32);
  for (int i = 0; i < 3; i++) tokens.data<int32_t>()[i] = i == 0 ? 3 : i == 1 ? -1 : 4;
  ops::gather(table, on_gpu(tokens), none, y);
  std::vector<double> v = to_vector(y);
  CHECK(std::isfinite(v[0]));
  CHECK(std::isnan(v[8]));
  CHECK(std::isnan(v[16]));
}

TEST_CASE("cuda: gather backward") {
  struct Case {
    int64_t n, spread, cols, margin;
  };
  for (DType dtype : kSingle) {
    for (auto [n, spread, cols, margin] : {Case{1, 1, 3, 0},
                                           {63, 5, 8, 0},
                                           {64, 1, 8, 8},
                                           {200, 3, 5, 0},
                                           {700, 1, 24, 0},
                                           {1100, 90, 264, 0},
                                           {520, 20, 40, 1},
                                           {0, 1, 8, 0}}) {
      for (bool accumulate : {false, true}) {
        CAPTURE(n);
        CAPTURE(cols);
        Pair tokens = pair_of(tokens_of(n, 1, spread)), dy = values({n, 1, cols}, dtype, 1, margin);
        Pair table = destination({spread + 3, cols}, DType::f32, accumulate);
        on_both([&](Device d) {
          ops::gather_backward(tokens.on(d), dy.on(d), {table.on(d), accumulate});
        });
        check_equal(table);
      }
    }
  }
}

TEST_CASE("cuda: gather backward has the same bits every time") {
  Tensor tokens = on_gpu(tokens_of(600, 1, 40)), dy = on_gpu(random({600, 1, 24}, DType::bf16, 1));
  check_repeatable([&] {
    Tensor table = poisoned({50, 24}, DType::f32);
    ops::gather_backward(tokens, dy, {table});
    return table;
  });
}

}  // namespace murmur
