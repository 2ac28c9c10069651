// tests/cuda/hopper_test.cu - what runs on Hopper only: first each instruction, then the kernels.
//
// On a GPU this is also the conformance test of the emulation: the same kernels, the same numbers.
#include <doctest/doctest.h>

#include "tensor/cuda/attention_hopper.h"
#include "tensor/cuda/hopper.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/symmetric_hopper.h"
#include "tensor/ops.h"
#include "tests/cuda/parity.h"

using namespace murmur;
using murmur::cuda::Major;

namespace {

// Makes the emulated device a Hopper; a real one is what it is.
struct Hopper {
  bool here;
  Hopper() {
#ifdef MURMUR_CUDA_ON_CPU
    cuda_on_cpu::set_capability(90);
#endif
    here = cuda::device_facts().capability == 90;
    if (!here) MESSAGE("skipped: not a Hopper GPU");
  }
  ~Hopper() {
#ifdef MURMUR_CUDA_ON_CPU
    cuda_on_cpu::set_capability(80);
#endif
  }
};

// Small whole numbers: products of them are exact in any order.
Tensor whole_numbers(Shape shape, int salt) {
  std::vector<double> x(size_t(shape.numel()));
  for (size_t i = 0; i < x.size(); i++) x[i] = double((i * i * 7 + i * 13 + size_t(salt)) % 11) - 5;
  return Tensor::of(x, shape, DType::bf16);
}

// instructions -----------------------------------------------------------------------------------

// Copies the box at (x, y) of matrix z, as it then lies in shared memory.
__global__ void copy_box(const __grid_constant__ cuda::TileMap map, int x, int y, int z, int rows,
                         bf16* out) {
#ifdef MURMUR_HOPPER
  MURMUR_SHARED(shared);
  bf16* tile = reinterpret_cast<bf16*>(shared);
  auto& arrived = *reinterpret_cast<cuda::Mbarrier*>(shared + rows * 128);
  if (threadIdx.x == 0) {
    cuda::barrier_init(arrived, 1);
    cuda::fence_async();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    cuda::arrive_expecting(arrived, rows * 128);
    cuda::load_tile(tile, map, x, y, z, arrived);
  }
  cuda::wait(arrived, 0);
  for (int i = threadIdx.x; i < rows * cuda::kPanel; i += blockDim.x) out[i] = tile[i];
#endif
}

// c (64 x N) = a b^T of depth 64, each operand as its Major says: (rows, 64) or (64, rows). With
// kRegisters the left one is read from memory by each thread.
template <int N, Major a_major, Major b_major, bool kRegisters>
__global__ void one_product(const __grid_constant__ cuda::TileMap a,
                            const __grid_constant__ cuda::TileMap b, const bf16* a_plain,
                            float* c) {
#ifdef MURMUR_HOPPER
  constexpr int kPanel = cuda::kPanel;
  MURMUR_SHARED(shared);
  bf16* left = reinterpret_cast<bf16*>(shared);
  bf16* right = left + 64 * 64;
  auto& arrived = *reinterpret_cast<cuda::Mbarrier*>(right + N * 64);
  if (threadIdx.x == 0) {
    cuda::barrier_init(arrived, 1);
    cuda::fence_async();
    cuda::arrive_expecting(arrived, (64 + N) * 64 * 2);
    cuda::load_tile(left, a, 0, 0, 0, arrived);
    for (int i = 0; i < (b_major == Major::k ? 1 : N / kPanel); i++) {
      cuda::load_tile(right + i * 64 * kPanel, b, i * kPanel, 0, 0, arrived);
    }
  }
  __syncthreads();
  cuda::wait(arrived, 0);
  float d[N / 8][4];
  int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
  uint32_t first[4][4];
  for (int i = 0; i < 16; i++) {
    const bf16* pair = a_plain + (row + i % 2 * 8) * 64 + i / 4 * 16 + i / 2 % 2 * 8 + lane % 4 * 2;
    first[i / 4][i % 4] = *reinterpret_cast<const uint32_t*>(pair);
  }
  cuda::fence_products();
#pragma unroll
  for (int k = 0; k < 64; k += 16) {
    uint64_t second = b_major == Major::k
                          ? cuda::describe(right + k)
                          : cuda::describe(right + k * kPanel, 64 * kPanel * int(sizeof(bf16)));
    if constexpr (kRegisters) {
      cuda::multiply<b_major>(d, first[k / 16], second, k > 0);
    } else {
      cuda::multiply<a_major, b_major>(
          d, cuda::describe(a_major == Major::k ? left + k : left + k * kPanel), second, k > 0);
    }
  }
  cuda::commit_products();
  cuda::wait_products<0>();
  for (int i = 0; i < N / 2; i++) {
    c[(row + i % 4 / 2 * 8) * N + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i / 4][i % 4];
  }
#endif
}

// What the emulation must find out.
enum class Fault {
  none,
  no_wait_for_tile,     // its product starts before the tile is there
  no_wait_for_product,  // its accumulators are read before they are written
  no_fence,             // before the product
  barrier_not_fenced,   // before the copy
  too_many_bytes,       // are waited for
  misaligned_tile,
  overwritten_operand,  // while the product runs
  half_a_warpgroup,     // multiplies
};
template <Fault kFault>
__global__ void faulty(const __grid_constant__ cuda::TileMap map, float* c) {
#ifdef MURMUR_HOPPER
  MURMUR_SHARED(shared);
  bf16* tile = reinterpret_cast<bf16*>(shared + (kFault == Fault::misaligned_tile ? 128 : 0));
  auto& arrived = *reinterpret_cast<cuda::Mbarrier*>(shared + 16384);
  if (threadIdx.x == 0) {
    cuda::barrier_init(arrived, 1);
    if (kFault != Fault::barrier_not_fenced) cuda::fence_async();
    cuda::arrive_expecting(arrived, 8192 + (kFault == Fault::too_many_bytes ? 16 : 0));
    cuda::load_tile(tile, map, 0, 0, 0, arrived);
  }
  __syncthreads();
  if (kFault != Fault::no_wait_for_tile) cuda::wait(arrived, 0);
  if (kFault == Fault::half_a_warpgroup && threadIdx.x >= 64) return;
  float d[8][4];
  if (kFault != Fault::no_fence) cuda::fence_products();
  for (int k = 0; k < 64; k += 16) {
    cuda::multiply(d, cuda::describe(tile + k), cuda::describe(tile + k), k > 0);
  }
  cuda::commit_products();
  if (kFault == Fault::overwritten_operand) tile[threadIdx.x] = bf16(9.f);
  float early = d[0][0];
  cuda::wait_products<0>();
  if (kFault == Fault::no_wait_for_tile) cuda::wait(arrived, 0);
  c[threadIdx.x] = kFault == Fault::no_wait_for_product ? early : d[0][0];
#endif
}

// The sum of what all threads got; NaN where one read too early.
template <Fault kFault>
double run_faulty() {
  Tensor a = on_gpu(whole_numbers({64, 64}, 1)), c = poisoned({128}, DType::f32);
  cuda::launch(faulty<kFault>, dim3(1), dim3(128), 16384 + 8,
               cuda::tile_map(a.data<bf16>(), 1, 64, 64, 64, 64), c.data<float>());
  double sum = 0;
  for (double x : to_vector(back(c))) sum += x;
  return sum;
}

template <int N, Major a_major, Major b_major, bool kRegisters = false>
void check_product() {
  CAPTURE(N);
  CAPTURE(int(a_major));
  CAPTURE(int(b_major));
  CAPTURE(kRegisters);
  auto operand = [](int rows, Major major, int salt) {
    return whole_numbers(major == Major::k ? Shape{rows, 64} : Shape{64, rows}, salt);
  };
  Tensor a = operand(64, a_major, 1), b = operand(N, b_major, 2);
  Tensor want({64, N}), got = poisoned({64, N}, DType::f32);
  MatmulForm form;
  form.transpose_a = a_major == Major::outer, form.transpose_b = b_major == Major::k;
  ops::matmul(a, b, {want}, form);
  Tensor a_gpu = on_gpu(a), b_gpu = on_gpu(b);
  auto map = [](const Tensor& x, int rows) {
    return cuda::tile_map(x.data<bf16>(), 1, x.rows(), x.cols(), x.cols(), rows);
  };
  cuda::launch(one_product<N, a_major, b_major, kRegisters>, dim3(1), dim3(128),
               size_t(64 + N) * 128 + 8, map(a_gpu, 64), map(b_gpu, b_major == Major::k ? N : 64),
               a_gpu.data<bf16>(), got.data<float>());
  CHECK(same_bits(got, want));
}

// the symmetric product --------------------------------------------------------------------------

struct Case {
  int64_t count, size, depth;
  bool transposed;
};

void check_symmetric(const Case& c, bool with_plus, bool with_factors) {
  CAPTURE(c.count);
  CAPTURE(c.size);
  CAPTURE(c.depth);
  CAPTURE(c.transposed);
  CAPTURE(with_plus);
  Tensor a =
      random(c.transposed ? Shape{c.count, c.depth, c.size} : Shape{c.count, c.size, c.depth},
             DType::bf16, 1);
  Shape result = {c.count, c.size, c.size};
  Tensor plus, factors;
  MatmulForm form;
  form.transpose_b = true;
  if (with_plus) {
    Tensor root = random(result, DType::bf16, 2);
    plus = Tensor(result, DType::bf16);
    ops::matmul(root, root, {plus}, form);
    form.plus = plus, form.beta = -0.75;
  }
  if (with_factors) {
    factors = random({c.count}, DType::f32, 3);
    form.alpha = {1.5, factors};
  }
  Tensor want(result, DType::bf16), got = poisoned(result, DType::bf16);
  form.transpose_a = c.transposed, form.transpose_b = !c.transposed;
  ops::matmul(a, a, {want}, form);
  REQUIRE(cuda::symmetric_product(on_gpu(a), c.transposed,
                                  {form.alpha.value, with_factors ? on_gpu(factors) : Tensor()},
                                  on_gpu(plus), form.beta, got));
  CHECK(relative_error(got, want) < 1e-2);
  std::vector<double> x = to_vector(got);
  bool symmetric = true;
  for (int64_t i = 0; i < got.numel(); i++) {
    int64_t r = i / c.size % c.size, s = i % c.size;
    symmetric &= x[size_t(i)] == x[size_t(i + (s - r) * c.size + r - s)];
  }
  CHECK(symmetric);
}

void gradient(const cuda::Heads& at, const Tensor& qkv, const Tensor& y, const Tensor& lse,
              const Tensor& dy, Into dqkv) {
  Tensor statistics = cuda::row_statistics_of(at, y, dy, lse);
  auto* data = static_cast<const cuda::RowStatistics*>(statistics.raw());
  cuda::hopper_attention_backward(at, qkv, dy, data, dqkv);
}

}  // namespace

TEST_CASE("a tile lies swizzled in shared memory, with zeros where the matrix has ended") {
  Hopper hopper;
  if (!hopper.here) return;
  const int count = 2, rows = 100, columns = 72, stride = 80;
  Tensor whole = random({count * rows, stride}, DType::bf16, 1), source = on_gpu(whole);
  std::vector<double> x = to_vector(whole);
  for (int box_rows : {8, 64, 128}) {
    auto map = cuda::tile_map(source.data<bf16>(), count, rows, columns, stride, box_rows);
    for (auto [x0, y0, z0] : {std::array{0, 0, 0}, {64, 64, 1}, {8, 96, 0}, {0, 0, 2}}) {
      Tensor out = poisoned({box_rows, cuda::kPanel}, DType::bf16);
      cuda::launch(copy_box, dim3(1), dim3(64), size_t(box_rows) * 128 + 8, map, x0, y0, z0,
                   box_rows, out.data<bf16>());
      std::vector<double> got = to_vector(back(out));
      int wrong = 0;
      for (int r = 0; r < box_rows; r++) {
        for (int c = 0; c < cuda::kPanel; c++) {
          bool inside = x0 + c < columns && y0 + r < rows && z0 < count;
          double want = inside ? x[size_t((z0 * rows + y0 + r) * stride + x0 + c)] : 0;
          wrong += got[size_t(cuda::swizzled(r, c))] != want;
        }
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("a product takes its operands from shared memory or registers, either way round") {
  Hopper hopper;
  if (!hopper.here) return;
  check_product<64, Major::k, Major::k>();
  check_product<64, Major::k, Major::outer>();
  check_product<64, Major::outer, Major::k>();
  check_product<64, Major::outer, Major::outer>();
  check_product<128, Major::k, Major::k>();
  check_product<128, Major::k, Major::outer>();
  check_product<128, Major::outer, Major::k>();
  check_product<128, Major::outer, Major::outer>();
  check_product<64, Major::k, Major::k, true>();
  check_product<64, Major::k, Major::outer, true>();
  check_product<128, Major::k, Major::k, true>();
  check_product<128, Major::k, Major::outer, true>();
}

#ifdef MURMUR_CUDA_ON_CPU
TEST_CASE("the emulated Hopper finds what a GPU would only sometimes show") {
  Hopper hopper;
  for (unsigned order : {0u, 1u, 2u}) {
    cuda_on_cpu::set_order(order);
    CHECK(std::isfinite(run_faulty<Fault::none>()));
    CHECK(std::isnan(run_faulty<Fault::no_wait_for_product>()));
    CHECK_THROWS_AS(run_faulty<Fault::no_fence>(), cuda_on_cpu::Error);
    CHECK_THROWS_AS(run_faulty<Fault::barrier_not_fenced>(), cuda_on_cpu::Error);
    CHECK_THROWS_AS(run_faulty<Fault::too_many_bytes>(), cuda_on_cpu::Error);
    CHECK_THROWS_AS(run_faulty<Fault::misaligned_tile>(), cuda_on_cpu::Error);
    CHECK_THROWS_AS(run_faulty<Fault::overwritten_operand>(), cuda_on_cpu::Error);
    CHECK_THROWS_AS(run_faulty<Fault::half_a_warpgroup>(), cuda_on_cpu::Error);
  }
  cuda_on_cpu::set_order(0);
  CHECK(
      std::isnan(run_faulty<Fault::no_wait_for_tile>()));  // by chance it is there in other orders
}
#endif

TEST_CASE("symmetric products of every size") {
  Hopper hopper;
  if (!hopper.here) return;
  for (const Case& c : {Case{1, 64, 64, false},
                        {2, 100, 8, false},
                        {1, 128, 200, false},
                        {3, 192, 192, false},
                        {1, 300, 72, false},
                        {1, 128, 448, false},
                        {1, 64, 64, true},
                        {2, 104, 8, true},
                        {1, 128, 200, true},
                        {3, 192, 75, true},
                        {1, 304, 130, true}}) {
    check_symmetric(c, false, true);
    check_symmetric(c, true, false);
  }
}

TEST_CASE("a symmetric product may overwrite what it adds, and repeats to the bit") {
  Hopper hopper;
  if (!hopper.here) return;
  Tensor a = on_gpu(random({2, 192, 328}, DType::bf16, 1)), start({2, 192, 192}, DType::bf16);
  ops::fill(start, 0.5);
  for (bool transposed : {false, true}) {
    Tensor columns = a.columns(0, 192), &side = transposed ? columns : a;  // rows 328 apart
    Tensor apart = poisoned({2, 192, 192}, DType::bf16);
    REQUIRE(cuda::symmetric_product(side, transposed, 1, on_gpu(start), 2, apart));
    check_repeatable([&] {
      Tensor c = on_gpu(start);
      CHECK(cuda::symmetric_product(side, transposed, 1, c, 2, c));
      CHECK(same_bits(c, apart));
      return c;
    });
  }
}

TEST_CASE("attention of every length, and its gradient") {
  Hopper hopper;
  if (!hopper.here) return;
  int64_t heads = 1;
  for (int64_t time : {1, 64, 127, 128, 129, 200, 260}) {
    for (int64_t size : {64, 128}) {
      CAPTURE(time);
      CAPTURE(size);
      CAPTURE(heads);
      Shape packed = {2, time, 3 * heads * size}, plain = {2, time, heads * size};
      Tensor qkv = random(packed, DType::bf16, 1), dy = random(plain, DType::bf16, 2);
      Tensor y(plain, DType::bf16), lse({2, heads, time}), dqkv = random(packed, DType::bf16, 3);
      Tensor y_gpu = poisoned(plain, DType::bf16), lse_gpu = poisoned(lse.shape(), DType::f32);
      Tensor qkv_gpu = on_gpu(qkv), dqkv_gpu = poisoned(packed, DType::bf16);
      const bool accumulate = heads == 2;
      if (accumulate) dqkv_gpu = on_gpu(dqkv);
      ops::attention(heads, qkv, y, lse);
      ops::attention_backward(heads, qkv, y, lse, dy, {dqkv, accumulate});
      cuda::Heads at{int(time), int(heads), int(size)};
      cuda::hopper_attention(at, qkv_gpu, y_gpu, lse_gpu);
      gradient(at, qkv_gpu, on_gpu(y), lse_gpu, on_gpu(dy), {dqkv_gpu, accumulate});
      CHECK(relative_error(y_gpu, y) < 1e-2);
      CHECK(relative_error(lse_gpu, lse) < 1e-5);
      CHECK(relative_error(dqkv_gpu, dqkv) < 1e-2);
      heads = heads % 3 + 1;
    }
  }
}

TEST_CASE("attention repeats to the bit, and so does its gradient") {
  Hopper hopper;
  if (!hopper.here) return;
  for (int64_t size : {64, 128}) {
    Tensor qkv = on_gpu(random({1, 400, 3 * size}, DType::bf16, 1));
    Tensor dy = on_gpu(random({1, 400, size}, DType::bf16, 2));
    Tensor y = poisoned(dy.shape(), DType::bf16), lse = poisoned({1, 1, 400}, DType::f32);
    cuda::Heads at{400, 1, int(size)};
    check_repeatable([&] {
      cuda::hopper_attention(at, qkv, y, lse);
      return y;
    });
    check_repeatable([&] {
      Tensor dqkv = poisoned(qkv.shape(), DType::bf16);
      gradient(at, qkv, y, lse, dy, {dqkv});
      return dqkv;
    });
  }
}

TEST_CASE("what Hopper's kernels cannot do, they leave alone") {
  {
    Hopper hopper;
    Tensor c({1, 64, 64}, DType::bf16, Device::cuda), wide({1, 64, 64}, DType::f32, Device::cuda);
    CHECK_FALSE(cuda::symmetric_product(wide, false, 1, {}, 1, wide));
    Tensor odd({1, 64, 36}, DType::bf16, Device::cuda);
    CHECK_FALSE(cuda::symmetric_product(odd, false, 1, {}, 1, c));
  }
#ifdef MURMUR_CUDA_ON_CPU
  Tensor a({1, 64, 64}, DType::bf16, Device::cuda), c({1, 64, 64}, DType::bf16, Device::cuda);
  CHECK_FALSE(cuda::symmetric_product(a, false, 1, {}, 1, c));  // no Hopper
#endif
}

TEST_CASE("Hopper's attention agrees with the general one, or is not used") {
  Hopper hopper;
  for (int size : {64, 128}) CHECK(cuda::hopper_attention_trusted(size) == hopper.here);
}

TEST_CASE("a Hopper kernel that is wrong is never used") {
  Hopper hopper;
  if (!hopper.here) return;
  int verdict = 0, asked = 0;
  auto wrong = [&] { return asked++, NAN; };
  CHECK_FALSE(cuda::first_use("nothing (a test)", verdict, wrong));
  CHECK_FALSE(cuda::first_use("nothing (a test)", verdict, wrong));
  CHECK(asked == 1);
  int unknown = 0;  // no time for a check while a step is captured
  gpu().capture([&] { CHECK_FALSE(cuda::first_use("nothing (a test)", unknown, wrong)); });
  CHECK(unknown == 0);
  CHECK(asked == 1);
}
