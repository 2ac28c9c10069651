// tests/cuda/instructions_test.cu - every function of tensor/cuda/instructions.h, and the warp
// functions, against the formulas of the PTX manual: on a GPU, and as tests/cuda_on_cpu/ emulates
// them.
#include "tensor/cuda/instructions.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace murmur::cuda {
namespace {

// An array on the device and the same on the host.
template <class T>
class Both {
 public:
  explicit Both(std::vector<T> values) : host(std::move(values)) {
    REQUIRE(cudaMalloc(&device_, bytes()) == cudaSuccess);
    REQUIRE(cudaMemcpy(device_, host.data(), bytes(), cudaMemcpyHostToDevice) == cudaSuccess);
  }
  explicit Both(size_t n) : Both(std::vector<T>(n)) {}
  Both(const Both&) = delete;
  ~Both() { cudaFree(device_); }
  T* device() const { return device_; }
  const std::vector<T>& fetch() {
    REQUIRE(cudaMemcpy(host.data(), device_, bytes(), cudaMemcpyDeviceToHost) == cudaSuccess);
    return host;
  }
  std::vector<T> host;

 private:
  size_t bytes() const { return host.size() * sizeof(T); }
  T* device_ = nullptr;
};

template <class... P, class... A>
void run(void (*kernel)(P...), unsigned threads, size_t shared, A... args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = 1;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared;
  REQUIRE(cudaLaunchKernelEx(&config, kernel, P(args)...) == cudaSuccess);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
}

// Fragments by the formulas of PTX ISA 9.7.14.5.8 (m16n8k16, 16-bit): element i of a lane.
__host__ __device__ int a_row(int lane, int i) { return lane / 4 + (i / 2 % 2) * 8; }
__host__ __device__ int a_col(int lane, int i) { return lane % 4 * 2 + i % 2 + i / 4 * 8; }
__host__ __device__ int b_row(int lane, int i) { return lane % 4 * 2 + i % 2 + i / 2 * 8; }
__host__ __device__ int b_col(int lane, int) { return lane / 4; }
__host__ __device__ int c_row(int lane, int i) { return lane / 4 + i / 2 * 8; }
__host__ __device__ int c_col(int lane, int i) { return lane % 4 * 2 + i % 2; }

__global__ void mma_kernel(const float* a, const float* b, float* c) {  // (16, 16) (16, 8) (16, 8)
  int lane = int(threadIdx.x) % 32;
  a += threadIdx.x / 32 * 256, b += threadIdx.x / 32 * 128, c += threadIdx.x / 32 * 128;
  uint32_t fa[4], fb[2];
  float d[4];
  for (int i = 0; i < 4; i++) {
    fa[i] = pack(a[a_row(lane, 2 * i) * 16 + a_col(lane, 2 * i)],
                 a[a_row(lane, 2 * i + 1) * 16 + a_col(lane, 2 * i + 1)]);
  }
  for (int i = 0; i < 2; i++) {
    fb[i] = pack(b[b_row(lane, 2 * i) * 8 + b_col(lane, 2 * i)],
                 b[b_row(lane, 2 * i + 1) * 8 + b_col(lane, 2 * i + 1)]);
  }
  for (int i = 0; i < 4; i++) d[i] = c[c_row(lane, i) * 8 + c_col(lane, i)];
  mma(d, fa, fb[0], fb[1]);
  for (int i = 0; i < 4; i++) c[c_row(lane, i) * 8 + c_col(lane, i)] = d[i];
}

// The largest difference from a product in double, for four warps with numbers f(0), f(1), ...
template <class F>
double mma_error(F f) {
  std::vector<float> a(4 * 256), b(4 * 128), c(4 * 128);
  int next = 0;
  for (auto* x : {&a, &b, &c}) {
    for (float& v : *x) v = float(bf16(f(next++)));
  }
  std::vector<double> want(c.begin(), c.end());
  for (int i = 0; i < 4 * 16 * 8; i++) {
    int warp = i / 128, row = i / 8 % 16, col = i % 8;
    for (int k = 0; k < 16; k++) {
      want[size_t(i)] += double(a[size_t(warp * 256 + row * 16 + k)]) *
                         double(b[size_t(warp * 128 + k * 8 + col)]);
    }
  }
  Both<float> da(a), db(b), dc(c);
  run(mma_kernel, 128, 0, da.device(), db.device(), dc.device());
  double error = 0;
  for (size_t i = 0; i < want.size(); i++) {
    error = std::max(error, std::abs(double(dc.fetch()[i]) - want[i]));
  }
  return error;
}

TEST_CASE("mma multiplies tiles laid out as the PTX manual says") {
  CHECK(mma_error([](int i) { return float(i * 37 % 23 - 11); }) == 0);  // exact in fp32
  CHECK(mma_error([](int i) { return std::sin(0.7f * float(i)); }) < 1e-5);
}

__global__ void matrices_kernel(const uint16_t* x, int stride, uint32_t* plain, uint32_t* turned) {
  MURMUR_SHARED(shared);
  auto* s = reinterpret_cast<uint16_t*>(shared);
  int lane = int(threadIdx.x);
  for (int i = lane; i < 32 * stride; i += 32) s[i] = x[i];
  __syncwarp();
  uint32_t r[4];
  load_matrices(r, s + lane * stride);
  for (int i = 0; i < 4; i++) plain[lane * 4 + i] = r[i];
  load_matrices_transposed(r, s + lane * stride);
  for (int i = 0; i < 4; i++) turned[lane * 4 + i] = r[i];
}

TEST_CASE("load_matrices hands out rows, load_matrices_transposed columns") {
  for (int stride : {8, 24, 40}) {
    std::vector<uint16_t> x(size_t(32 * stride));
    for (size_t i = 0; i < x.size(); i++) x[i] = uint16_t(i * 40503);
    Both<uint16_t> dx(x);
    Both<uint32_t> plain(128), turned(128);
    run(matrices_kernel, 32, x.size() * 2, dx.device(), stride, plain.device(), turned.device());
    plain.fetch(), turned.fetch();
    auto at = [&](int matrix, int row, int col) {
      return uint32_t(x[size_t((matrix * 8 + row) * stride + col)]);
    };
    for (int lane = 0; lane < 32; lane++) {
      for (int i = 0; i < 4; i++) {
        int row = lane / 4, col = lane % 4 * 2;
        CAPTURE(stride);
        CAPTURE(lane);
        CAPTURE(i);
        CHECK(plain.host[size_t(lane * 4 + i)] == (at(i, row, col) | at(i, row, col + 1) << 16));
        CHECK(turned.host[size_t(lane * 4 + i)] == (at(i, col, row) | at(i, col + 1, row) << 16));
      }
    }
  }
}

// Three groups of 16 bytes per thread; after each wait, what has come for sure.
__global__ void copies_kernel(const uint32_t* x, uint32_t* y) {
  MURMUR_SHARED(shared);
  auto* s = reinterpret_cast<uint32_t*>(shared);
  const unsigned n = blockDim.x, t = threadIdx.x;
  for (unsigned g = 0; g < 3; g++) {
    copy_async(s + (g * n + t) * 4, x + (g * n + t) * 4, t % 5 != 4);
    copy_async_commit();
  }
  copy_async_wait<2>();
  for (unsigned i = 0; i < 4; i++) y[t * 4 + i] = s[t * 4 + i];
  copy_async_wait<1>();
  for (unsigned i = 0; i < 4; i++) y[(n + t) * 4 + i] = s[(n + t) * 4 + i];
  copy_async_wait<0>();
  __syncthreads();
  unsigned other = n - 1 - t;
  for (unsigned i = 0; i < 4; i++) y[(2 * n + t) * 4 + i] = s[(2 * n + other) * 4 + i];
}

TEST_CASE("copy_async brings bytes, or zeros where they are not valid") {
  const unsigned n = 96;
  std::vector<uint32_t> x(3 * n * 4);
  for (size_t i = 0; i < x.size(); i++) x[i] = uint32_t(i * 2654435761u);
  Both<uint32_t> dx(x), dy(x.size());
  run(copies_kernel, n, x.size() * 4, dx.device(), dy.device());
  dy.fetch();
  int wrong = 0;
  for (unsigned g = 0; g < 3; g++) {
    for (unsigned t = 0; t < n; t++) {
      unsigned from = g == 2 ? n - 1 - t : t;
      for (unsigned i = 0; i < 4; i++) {
        uint32_t want = from % 5 == 4 ? 0 : x[(g * n + from) * 4 + i];
        wrong += dy.host[(g * n + t) * 4 + i] != want;
      }
    }
  }
  CHECK(wrong == 0);
}

__global__ void pack_kernel(const float* x, uint32_t* y, float* powers) {
  y[threadIdx.x] = pack(x[2 * threadIdx.x], x[2 * threadIdx.x + 1]);
  powers[2 * threadIdx.x] = exp2_fast(x[2 * threadIdx.x]);
  powers[2 * threadIdx.x + 1] = exp2_fast(x[2 * threadIdx.x + 1]);
}

TEST_CASE("pack rounds as bf16 does, exp2_fast is 2^x") {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> x = {0.f,           -0.f,   1.f,    -1.f,      inf,       -inf,
                          std::nanf(""), 1e-40f, 3e38f,  3.399e38f, 1.001953f, -150.f,
                          -127.5f,       -126.f, 127.5f, 128.f};
  for (uint32_t upper : {0x3f80u, 0x3f81u, 0x7f7fu, 0x0000u, 0xc3c7u}) {
    for (uint32_t lower : {0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu, 0x4000u}) {
      x.push_back(bit_cast<float>(upper << 16 | lower));
    }
  }
  while (x.size() < 256) x.push_back((float(x.size()) - 128) * 0.9371f);
  Both<float> dx(x), powers(x.size());
  Both<uint32_t> packed(x.size() / 2);
  run(pack_kernel, unsigned(x.size() / 2), 0, dx.device(), packed.device(), powers.device());
  packed.fetch(), powers.fetch();
  for (size_t i = 0; i < x.size(); i++) {
    CAPTURE(x[i]);
    CHECK((packed.host[i / 2] >> (i % 2 * 16) & 0xffff) == bf16(x[i]).bits);
    double want = std::exp2(double(x[i]));
    float got = powers.host[i];
    if (std::isnan(x[i])) {
      CHECK(std::isnan(got));
    } else if (want < 0x1p-126) {
      CHECK(got == 0);
    } else if (x[i] >= 128) {
      CHECK(got == inf);
    } else {
      CHECK(std::abs(double(got) - want) <= want * 0x1p-22);
    }
  }
}

__global__ void shuffles_kernel(int* y) {
  const int lane = int(threadIdx.x) % 32, v = lane * 10 + 1;
  y += threadIdx.x * 9;
  y[0] = __shfl_sync(~0u, v, 5);
  y[1] = __shfl_sync(~0u, v, lane + 1, 8);
  y[2] = __shfl_xor_sync(~0u, v, 3);
  y[3] = __shfl_down_sync(~0u, v, 4, 16);
  y[4] = __shfl_up_sync(~0u, v, 4, 16);
  y[5] = int(__ballot_sync(~0u, lane % 3 == 0));
  y[6] = __syncthreads_count(lane < 5);
  if (lane < 12) {  // two parts of a warp at once
    y[7] = __shfl_xor_sync(0xfffu, v, lane < 8 ? 4 : 1);
    y[8] = __any_sync(0xfffu, lane == 3) * 2 + __all_sync(0xfffu, lane < 11);
  } else {
    y[7] = __shfl_sync(~0xfffu, v, 31 - lane % 2);
    y[8] = __any_sync(~0xfffu, lane == 3) * 2 + __all_sync(~0xfffu, lane >= 12);
  }
}

TEST_CASE("shuffles, votes and counts, also in parts of a warp") {
  Both<int> y(64 * 9);
  run(shuffles_kernel, 64, 0, y.device());
  y.fetch();
  for (int t = 0; t < 64; t++) {
    const int lane = t % 32;
    auto v = [](int l) { return l * 10 + 1; };
    const int* got = &y.host[size_t(t * 9)];
    CAPTURE(t);
    CHECK(got[0] == v(5));
    CHECK(got[1] == v(lane / 8 * 8 + (lane + 1) % 8));
    CHECK(got[2] == v(lane ^ 3));
    CHECK(got[3] == v(lane % 16 + 4 < 16 ? lane + 4 : lane));
    CHECK(got[4] == v(lane % 16 >= 4 ? lane - 4 : lane));
    CHECK(uint32_t(got[5]) == 0x49249249u);
    CHECK(got[6] == 10);
    CHECK(got[7] == v(lane < 8 ? lane ^ 4 : lane < 12 ? lane ^ 1 : 31 - lane % 2));
    CHECK(got[8] == (lane < 12 ? 2 : 1));
  }
}

}  // namespace
}  // namespace murmur::cuda
