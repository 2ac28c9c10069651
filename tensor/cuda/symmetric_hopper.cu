// tensor/cuda/symmetric_hopper.cu - a a^T and a^T a for banks of matrices on Hopper.
//
// One block is one 128 x 128 tile of one result, on the diagonal or below it. It stores the tile
// and, off the diagonal, its mirror. Slices of 64 along the inner dimension pass through kStages
// places in shared memory; two blocks share a multiprocessor, so that one stores while the other
// computes.
#include "tensor/cuda/hopper.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/symmetric_hopper.h"
#include "tensor/cuda/vector.h"
#include "tensor/ops/functions.h"

namespace murmur::cuda {
namespace {

constexpr int kTile = 128, kSlice = 64, kStages = 3;
constexpr int kThreads = 2 * kWarpgroup, kPitch = kTile + 8;  // of staged results: no bank twice

struct Stage {
  bf16 rows[kTile * kSlice], columns[kTile * kSlice];
};
struct Shared {
  union {
    Stage stage[kStages];
    bf16 result[2][kTile * kPitch];  // the tile and its mirror
  };
  Mbarrier full[kStages], empty[kStages];
};

struct Problem {
  int size, depth;  // results are size x size
  float alpha, beta;
  const float* alphas;  // one for every matrix, or one for all, or none
  int alpha_step;
  const bf16* plus;
  int64_t plus_stride, stride;  // of rows
  bf16* result;
};

// kTransposed: a is (depth, size), and its rows are the inner dimension.
template <bool kTransposed>
__global__ void __launch_bounds__(kThreads, 2)
    symmetric_tile(const __grid_constant__ TileMap map, Problem p) {
#ifdef MURMUR_HOPPER
  MURMUR_SHARED(raw);
  Shared& shared = *reinterpret_cast<Shared*>(raw);
  int tile_row = 0, tile_column = blockIdx.x, matrix = blockIdx.y;
  while (tile_column > tile_row) tile_column -= ++tile_row;
  const bool diagonal = tile_row == tile_column;
  const int slices = int(ceil_div(p.depth, kSlice));

  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; s++) {
      barrier_init(shared.full[s], 1);
      barrier_init(shared.empty[s], kThreads / 32);
    }
    fence_async();
  }
  __syncthreads();
  auto load = [&](int slice) {
    auto& stage = shared.stage[slice % kStages];
    Mbarrier& full = shared.full[slice % kStages];
    arrive_expecting(full, int(diagonal ? sizeof stage.rows : sizeof stage));
    auto load_side = [&](bf16* to, int tile) {
      if constexpr (kTransposed) {
        for (int i = 0; i < 2; i++) {
          load_tile(to + i * kSlice * kPanel, map, tile * kTile + i * kPanel, slice * kSlice,
                    matrix, full);
        }
      } else {
        load_tile(to, map, slice * kSlice, tile * kTile, matrix, full);
      }
    };
    load_side(stage.rows, tile_row);
    if (!diagonal) load_side(stage.columns, tile_column);
  };
  if (threadIdx.x == 0) {
    for (int slice = 0; slice < min(kStages, slices); slice++) load(slice);
  }

  const int group = threadIdx.x / kWarpgroup;  // rows 64 group and later
  float sum[16][4];
  for (int slice = 0; slice < slices; slice++) {
    auto& stage = shared.stage[slice % kStages];
    const bf16* columns = diagonal ? stage.rows : stage.columns;
    wait(shared.full[slice % kStages], slice / kStages % 2);
    fence_products();
#pragma unroll
    for (int k = 0; k < kSlice; k += 16) {
      if constexpr (kTransposed) {
        multiply<Major::outer, Major::outer>(
            sum, describe(stage.rows + group * kSlice * kPanel + k * kPanel),
            describe(columns + k * kPanel, kSlice * kPanel * int(sizeof(bf16))), slice + k > 0);
      } else {
        multiply<Major::k, Major::k>(sum, describe(stage.rows + group * 64 * kSlice + k),
                                     describe(columns + k), slice + k > 0);
      }
    }
    commit_products();
    wait_products<1>();  // those of the slice before are done
    if (slice == 0) continue;
    Mbarrier& empty = shared.empty[(slice - 1) % kStages];
    release(empty);
    if (threadIdx.x == 0 && slice - 1 + kStages < slices) {
      wait(empty, (slice - 1) / kStages % 2);
      load(slice - 1 + kStages);
    }
  }
  wait_products<0>();
  __syncthreads();  // the stages are free: results go there, to be stored in whole rows

  const int first_row = tile_row * kTile, first_column = tile_column * kTile;
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
  const float alpha = p.alphas ? p.alpha * p.alphas[matrix * p.alpha_step] : p.alpha;
  const bf16* plus = p.plus + matrix * p.size * p.plus_stride;
#pragma unroll
  for (int i = 0; i < 32; i++) {
    int r = row + i % 2 * 8, c = i / 2 * 8 + lane % 4 * 2;
    float low = alpha * sum[i / 2][i % 2 * 2], high = alpha * sum[i / 2][i % 2 * 2 + 1];
    if (p.plus && first_row + r < p.size && first_column + c < p.size) {
      const bf16* pair = plus + (first_row + r) * p.plus_stride + first_column + c;
      uint32_t both = *reinterpret_cast<const uint32_t*>(pair);
      low += p.beta * bit_cast<float>(both << 16);
      high += p.beta * bit_cast<float>(both & 0xffff0000u);
    }
    uint32_t both = pack(low, high);
    bf16 *there = shared.result[0] + r * kPitch + c, *mirrored = shared.result[1] + c * kPitch + r;
    *reinterpret_cast<uint32_t*>(there) = both;
    mirrored[0].bits = uint16_t(both);
    mirrored[kPitch].bits = uint16_t(both >> 16);
  }
  __syncthreads();
  bf16* result = p.result + matrix * p.size * p.stride;
  for (int mirror = 0; mirror < (diagonal ? 1 : 2); mirror++) {
    for (int i = threadIdx.x; i < kTile * kTile / 4; i += kThreads) {
      int r = i / 32, c = i % 32 * 4;
      int to_row = (mirror ? first_column : first_row) + r;
      int to_column = (mirror ? first_row : first_column) + c;
      if (to_row >= p.size || to_column >= p.size) continue;
      Vector<bf16, 4>::at(shared.result[mirror] + r * kPitch + c)
          .to(result + to_row * p.stride + to_column);
    }
  }
#endif
}

template <bool kTransposed>
void run(const Tensor& a, const Factor& alpha, const Tensor& plus, double beta, Tensor& c) {
  int size = int(c.cols()), matrices = int(c.rows() / size);
  int tiles = int(ceil_div(size, kTile));
  int64_t rows = a.rows() / matrices;
  Problem p = {size,
               int(kTransposed ? rows : a.cols()),
               float(alpha.value),
               float(beta),
               alpha.by ? alpha.by.data<float>() : nullptr,
               alpha.by && alpha.by.numel() > 1,
               plus ? plus.data<bf16>() : nullptr,
               plus ? plus.row_stride() : 0,
               c.row_stride(),
               c.data<bf16>()};
  TileMap map = tile_map(a.data<bf16>(), matrices, rows, a.cols(), a.row_stride(),
                         kTransposed ? kSlice : kTile);
  launch(symmetric_tile<kTransposed>, dim3(tiles * (tiles + 1) / 2, matrices), dim3(kThreads),
         sizeof(Shared), map, p);
}

template <bool kTransposed>
bool trusted() {
  static int verdict = 0;
  return first_use("symmetric products", verdict, [] {
    Tensor a = kTransposed ? sample({2, 200, 136}, 1) : sample({2, 136, 200}, 1);
    Tensor plus({2, 136, 136}, DType::bf16, Device::cuda),
        got = plus, want(plus.shape(), DType::bf16, Device::cuda);
    MatmulForm form;
    form.transpose_a = kTransposed, form.transpose_b = !kTransposed;
    matmul(a, a, {plus}, form);
    form.alpha = 0.5, form.plus = plus, form.beta = -0.25;
    matmul(a, a, {want}, form);
    run<kTransposed>(a, form.alpha, plus, form.beta, got);  // into plus itself
    return difference(got, want);
  });
}

bool fits(const Tensor& x, int alignment) {
  return x.dtype() == DType::bf16 && x.row_stride() % alignment == 0 &&
         reinterpret_cast<uintptr_t>(x.raw()) % (2 * alignment) == 0;
}

}  // namespace

bool symmetric_product(const Tensor& a, bool transpose_first, const Factor& alpha,
                       const Tensor& plus, double beta, Tensor& c) {
  if (a.numel() == 0 || c.numel() == 0) return false;
  const int64_t size = c.cols(), inner = transpose_first ? a.rows() * size / c.rows() : a.cols();
  check(c.rows() % size == 0 && a.numel() * size == c.numel() * inner,
        [&] { return text(a) + " does not fit " + text(c); });
  if (size % 4 != 0 || !fits(a, 8) || !fits(c, 4)) return false;
  if (plus && !fits(plus, 2)) return false;
  if (alpha.by && alpha.by.dtype() != DType::f32) return false;
  if (!(transpose_first ? trusted<true>() : trusted<false>())) return false;
  if (transpose_first) {
    run<true>(a, alpha, plus, beta, c);
  } else {
    run<false>(a, alpha, plus, beta, c);
  }
  return true;
}

}  // namespace murmur::cuda
