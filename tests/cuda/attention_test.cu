// tests/cuda/attention_test.cu - attention on the GPU against the CPU engine in fp32, and the
// index arithmetic of its tiles.
#include <array>
#include <string>

#include "tensor/cuda/attention_backward.h"
#include "tensor/cuda/attention_forward.h"
#include "tensor/cuda/attention_tiles.h"
#include "tensor/ops.h"
#include "tests/cuda/parity.h"

namespace murmur {
namespace {

// index arithmetic
// ---------------------------------------------------------------------------------

template <int D>
constexpr bool tile_is_permuted() {
  constexpr int kRows = 32;
  std::array<bool, kRows * D / 8> taken{};
  for (int row = 0; row < kRows; row++) {
    for (int chunk = 0; chunk < D / 8; chunk++) {
      int to = cuda::tile_offset<D>(row, chunk);
      if (to % 8 != 0 || to / D != row || taken[to / 8]) return false;  // a row stays in its place
      taken[to / 8] = true;
      if (to != cuda::tile_offset<D>(row % 8, chunk) + row / 8 * 8 * D) return false;
    }
  }
  return true;
}

// Eight 16-byte accesses that the hardware makes at once: in eight groups of four banks?
template <class F>
constexpr bool different_banks(const F& offset) {
  unsigned groups = 0;
  for (int i = 0; i < 8; i++) groups |= 1u << offset(i) / 8 % 8;
  return groups == 0xff;
}

template <int D>
constexpr bool tile_has_no_conflicts() {
  for (int chunk = 0; chunk < D / 8; chunk++) {  // ldmatrix: one chunk of eight rows
    for (int row = 0; row < 32; row += 8) {
      if (!different_banks([=](int i) { return cuda::tile_offset<D>(row + i, chunk); })) {
        return false;
      }
    }
  }
  constexpr int kAcross = D % 64 == 0 ? 8 : 4;  // copy_tile: neighbouring threads
  for (int thread = 0; thread < 128; thread += 8) {
    for (int j = 0; j < D / 8; j += kAcross) {
      if (!different_banks([=](int i) {
            return cuda::tile_offset<D>((thread + i) / kAcross, (thread + i) % kAcross + j);
          })) {
        return false;
      }
    }
  }
  return true;
}

static_assert(tile_is_permuted<32>() && tile_is_permuted<64>());
static_assert(tile_is_permuted<96>() && tile_is_permuted<128>());
static_assert(tile_has_no_conflicts<32>() && tile_has_no_conflicts<64>());
static_assert(tile_has_no_conflicts<96>() && tile_has_no_conflicts<128>());

// A result has every element once, and its registers are those of an operand of the next product:
// instructions.h gives rows g, g + 8 and columns 2t, 2t + 8 for registers 0, 1 and 0, 2.
constexpr bool results_are_operands() {
  std::array<int, 16 * 8> times{};
  for (int lane = 0; lane < 32; lane++) {
    for (int e = 0; e < 4; e++) {
      int row = cuda::result_row(lane, e), column = cuda::result_column(lane, e);
      if (row != lane / 4 + (e / 2) * 8 || column != lane % 4 * 2 + e % 2) return false;
      times[row * 8 + column]++;
    }
  }
  for (int n : times) {
    if (n != 1) return false;
  }
  return true;
}
static_assert(results_are_operands());

// Shared memory that every GPU from sm_80 on gives to a block.
template <int D>
constexpr bool fits() {
  constexpr int kMost = 99 * 1024;
  return cuda::ForwardPlan<D>::kShared <= kMost && cuda::BackwardPlan<D, true>::kShared <= kMost &&
         cuda::BackwardPlan<D, false>::kShared <= kMost;
}
static_assert(fits<32>() && fits<64>() && fits<96>() && fits<128>());

// Pairs of query and key that the tiles of one kernel cover: each needed one once.
void check_cover(int time, int queries, int keys, bool blocks_of_keys) {
  std::vector<int> seen(size_t(time) * time);
  auto work_on = [&](int first_query, int first_key) {
    for (int i = first_query; i < std::min(first_query + queries, time); i++) {
      for (int j = first_key; j < std::min(first_key + keys, time); j++) seen[i * time + j]++;
    }
  };
  if (blocks_of_keys) {
    for (int block = 0; block < cuda::tiles_of(time, keys); block++) {
      int tile = cuda::first_query_tile(block * keys, queries);
      CHECK((tile + 1) * queries > block * keys);  // no tile without a visible pair
      for (; tile < cuda::tiles_of(time, queries); tile++) work_on(tile * queries, block * keys);
    }
  } else {
    for (int block = 0; block < cuda::tiles_of(time, queries); block++) {
      int tiles = cuda::key_tiles(block * queries, queries, time, keys);
      CHECK((tiles - 1) * keys < std::min(block * queries + queries, time));
      for (int tile = 0; tile < tiles; tile++) work_on(block * queries, tile * keys);
    }
  }
  int wrong = 0;
  for (int i = 0; i < time; i++) {
    for (int j = 0; j < time; j++) {
      int n = seen[i * time + j];
      wrong += j <= i ? n != 1 : n > 1;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("attention: every visible pair is in one tile") {
  for (int time : {1, 7, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200, 256, 300}) {
    CAPTURE(time);
    using Forward = cuda::ForwardPlan<64>;
    using Queries = cuda::BackwardPlan<128, false>;
    using Keys = cuda::BackwardPlan<64, true>;
    using LargeKeys = cuda::BackwardPlan<128, true>;
    check_cover(time, Forward::kQueries, Forward::kKeys, false);
    check_cover(time, Queries::kOwn, Queries::kOthers, false);
    check_cover(time, Keys::kOthers, Keys::kOwn, true);
    check_cover(time, LargeKeys::kOthers, LargeKeys::kOwn, true);
  }
}

// parity
// -------------------------------------------------------------------------------------------

struct Case {
  int64_t batch, time, heads, size;
};

Tensor as(DType dtype, const Tensor& x) {
  Tensor y(x.shape(), dtype);
  ops::copy(x, y);
  return y;
}

// Forward and backward on the GPU in `dtype`, beside the CPU in fp32 from the same rounded numbers.
// With a large deviation the softmax of most queries is one key alone: their dq and dk are then
// differences of almost equal numbers, of which only rounding remains, and need but be finite.
void check_parity(DType dtype, Case c, double deviation = 1) {
  CAPTURE(std::string(name_of(dtype)));
  CAPTURE(c.batch);
  CAPTURE(c.time);
  CAPTURE(c.heads);
  CAPTURE(c.size);
  bool large = deviation > 1;
  double limit = large ? std::max(tolerance(dtype), 1e-3) : tolerance(dtype);
  int64_t width = c.heads * c.size;
  Shape packed{c.batch, c.time, 3 * width}, plain{c.batch, c.time, width};
  Shape row{c.batch, c.heads, c.time};
  Tensor qkv = random(packed, dtype, 1, deviation), dy = random(plain, dtype, 2);
  Tensor before = random(packed, dtype, 3);

  Tensor wide = as(DType::f32, qkv), wide_dy = as(DType::f32, dy);
  Tensor want_y(plain), want_lse(row), want(packed), want_sum = as(DType::f32, before);
  ops::attention(c.heads, wide, want_y, want_lse);
  ops::attention_backward(c.heads, wide, want_y, want_lse, wide_dy, {want});
  ops::attention_backward(c.heads, wide, want_y, want_lse, wide_dy, {want_sum, true});

  Tensor x = on_gpu(qkv), d = on_gpu(dy), y = poisoned(plain, dtype);
  Tensor lse = poisoned(row, DType::f32), dx = poisoned(packed, dtype), sum = on_gpu(before);
  ops::attention(c.heads, x, y, lse);
  CHECK(relative_error(y, want_y) < limit);
  CHECK(relative_error(lse, want_lse) < 1e-5);
  ops::attention_backward(c.heads, x, y, lse, d, {dx});
  ops::attention_backward(c.heads, x, y, lse, d, {sum, true});
  for (int part = 0; part < 3; part++) {
    CAPTURE(part);  // dq, dk, dv
    auto of = [&](const Tensor& t) {
      return back(t).view({c.batch * c.time, 3 * width}).columns(part * width, (part + 1) * width);
    };
    if (part < 2 && large) {
      CHECK(std::isfinite(relative_error(of(dx), of(want))));
      continue;
    }
    // A lone query has the gradient 0 to itself and to its key: nothing to be relative to.
    if (part == 2 || c.time > 1) CHECK(relative_error(of(dx), of(want)) < limit);
    CHECK(relative_error(of(sum), of(want_sum)) < limit);
  }
}

TEST_CASE("attention on tensor cores is that of the CPU") {
  for (int64_t size : {32, 64, 96, 128}) {
    check_parity(DType::bf16, {1, 130, 1, size});
    check_parity(DType::bf16, {2, 17, 3, size});
  }
  for (int64_t size : {64, 128}) {
    for (int64_t time : {1, 7, 16, 63, 64, 65, 128, 200})
      check_parity(DType::bf16, {1, time, 1, size});
  }
}

TEST_CASE("attention row by row is that of the CPU") {
  for (int64_t size : {1, 20, 64, 100, 256}) {
    check_parity(DType::f32, {1, 65, 2, size});
    check_parity(DType::bf16, {2, 17, 3, size == 64 ? 24 : size});
  }
  for (int64_t time : {1, 7, 32, 33, 130}) check_parity(DType::f32, {1, time, 1, 16});
}

TEST_CASE("attention stays finite where scores are large") {
  // Scores of some thousand: e^x of them is infinite, or 0 for all keys but one.
  check_parity(DType::bf16, {1, 80, 1, 64}, 30);
  check_parity(DType::f32, {1, 80, 1, 20}, 30);
}

TEST_CASE("attention gives the same bits every time") {
  for (DType dtype : {DType::bf16, DType::f32}) {
    Tensor qkv = on_gpu(random({1, 140, 3 * 128}, dtype, 1));
    Tensor dy = on_gpu(random({1, 140, 128}, dtype, 2));
    for (int64_t heads : {1, 2}) {
      Tensor y = poisoned(dy.shape(), dtype), lse = poisoned({1, heads, 140}, DType::f32);
      check_repeatable([&] {
        Tensor y2 = poisoned(y.shape(), dtype);
        ops::attention(heads, qkv, y2, lse);
        y = y2;
        return y2;
      });
      check_repeatable([&] {
        Tensor dqkv = poisoned(qkv.shape(), dtype);
        ops::attention_backward(heads, qkv, y, lse, dy, {dqkv});
        return dqkv;
      });
    }
  }
}

TEST_CASE("attention refuses what it cannot do") {
  Tensor y({1, 4, 300}, DType::f32, Device::cuda), lse({1, 1, 4}, DType::f32, Device::cuda);
  Tensor large({1, 4, 900}, DType::f32, Device::cuda), odd({1, 4, 899}, DType::f32, Device::cuda);
  CHECK_THROWS_AS(ops::attention(1, large, y, lse), Error);
  CHECK_THROWS_AS(ops::attention(1, odd, y, lse), Error);
  CHECK_THROWS_AS(ops::attention(3, large, y, lse), Error);  // lse is of one head
}

}  // namespace
}  // namespace murmur
