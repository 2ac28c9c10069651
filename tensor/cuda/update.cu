// tensor/cuda/update.cu - the passes over parameters and optimizer state.
#include "tensor/cuda/cuda_engine.h"
#include "tensor/cuda/elementwise.h"

namespace murmur {
namespace cuda {

template <class D>
struct Descend {
  static constexpr int N = 4;
  DeviceFactor rate;
  double decay;
  Rows<D> d;
  Rows<float> w;
  Rows<bf16> shadow;
  __device__ void operator()(const Place& p) const {
    float direction[N], weight[N];
    d.load(direction, p);
    w.load(weight, p);
    double r = rate(p.row);
    float a = float(r), b = float(1 - r * decay);
    for (int i = 0; i < N; i++) weight[i] = b * weight[i] - a * direction[i];
    w.store(weight, p);
    if (shadow.data) shadow.store(weight, p);
  }
};

// The corrections 1 / (1 - beta^t) are made by every thread, while its loads are under way.
struct Adam {
  static constexpr int N = 4;
  Rows<float> gradient, m, v, direction;
  float beta1, beta2, rest1, rest2, eps;
  double log_beta1, log_beta2;
  const double* step;
  __device__ void operator()(const Place& p) const {
    float g[N], first[N], second[N], out[N];
    gradient.load(g, p);
    m.load(first, p);
    v.load(second, p);
    float c1 = -1.f / expm1f(float(*step * log_beta1));
    float c2 = -1.f / expm1f(float(*step * log_beta2));
    for (int i = 0; i < N; i++) {
      first[i] = beta1 * first[i] + rest1 * g[i];
      second[i] = beta2 * second[i] + rest2 * g[i] * g[i];
      out[i] = first[i] * c1 / (sqrt_of(second[i] * c2) + eps);
    }
    m.store(first, p);
    v.store(second, p);
    direction.store(out, p);
  }
};

template <class U>
struct Momentum {
  static constexpr int N = 4;
  Rows<float> gradient, m;
  Rows<U> u;
  float decay, weight, from_m, from_g;
  __device__ void operator()(const Place& p) const {
    float g[N], moment[N], out[N];
    gradient.load(g, p);
    m.load(moment, p);
    for (int i = 0; i < N; i++) {
      moment[i] = decay * moment[i] + weight * g[i];
      out[i] = from_m * moment[i] + from_g * g[i];
    }
    m.store(moment, p);
    u.store(out, p);
  }
};

__global__ void clip_factor(const float* squares32, const double* squares64, double limit,
                            float* factor32, double* factor64) {
  double norm = sqrt(squares64 ? *squares64 : double(*squares32));
  double f = limit / (norm + 1e-6);
  f = f > 1 ? 1 : f;  // NaN stays
  if (factor64) *factor64 = f;
  if (factor32) *factor32 = float(f);
}

// The norm of matrix k is left in the range whose squares fp32 holds: else every element is
// multiplied by a power of two, which changes no digit of it.
template <class T>
__global__ void __launch_bounds__(256)
    normalizers(Rows<T> bank, int64_t length, bool wide, const double* squares, double eps,
                float* f, float* squared) {
  constexpr int N = kNeighbours<T>;
  int64_t k = blockIdx.y;
  double square = squares[k], norm = sqrt(square);
  bool outside = square > 0 && square < INFINITY && (square < 1e-24 || square > 1e24);
  int exponent = outside ? -ilogb(norm) : 0;
  double up = ldexp(1.0, exponent);
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    double factor = 1 / (up * (norm + eps));
    f[k] = float(factor);
    squared[k] = float(factor * factor);
  }
  if (!outside) return;
  // In two halves: the inverse of what is as small as fp32 gets is more than it holds.
  float half = ldexpf(1, exponent / 2), rest = ldexpf(1, exponent - exponent / 2);
  int64_t step = int64_t(gridDim.x) * blockDim.x * N;
  for (int64_t at = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * N; at < length; at += step) {
    Place p = place(k, at, length, N, wide);
    float v[N];
    bank.load(v, p);
    for (int i = 0; i < N; i++) v[i] = v[i] * half * rest;
    bank.store(v, p);
  }
}

}  // namespace cuda

using namespace cuda;

namespace {

void check_fp32(const char* op, std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* x : tensors) {
    check(x->dtype() == DType::f32,
          [&] { return std::string(op) + ": not for " + text(*x) + " on this device"; });
  }
}

}  // namespace

void CudaEngine::descend(const Factor& rate, double decay, const Tensor& d, Tensor& w,
                         Tensor& shadow) const {
  Doing doing("descend", {&d, &w});
  check(d.shape() == w.shape() && (!shadow || shadow.shape() == w.shape()),
        [&] { return "descend: " + text(d) + " against " + text(w); });
  check_fp32("descend", {&w});
  Extent e = shadow ? extent_of(w, d, shadow) : extent_of(w, d);
  DeviceFactor r = factor_of("descend", rate, e);
  dispatch_single(d.dtype(), "descend", [&](auto type) {
    using D = decltype(type);
    launch_elementwise(
        Descend<D>{r, decay, rows_of<D>(d, e), rows_of<float>(w, e), rows_of<bf16>(shadow, e)}, e,
        {&d, &w, &shadow});
  });
}

void CudaEngine::adam(const Tensor& gradient, Tensor& m, Tensor& v, Tensor& direction, double beta1,
                      double beta2, double eps, const Tensor& step) const {
  Doing doing("adam", {&gradient, &m, &v, &direction});
  check_same("adam", gradient, m);
  check_same("adam", gradient, v);
  check_same("adam", gradient, direction);
  check_fp32("adam", {&gradient});
  Extent e = extent_of(gradient, m, v, direction);
  launch_elementwise(
      Adam{rows_of<float>(gradient, e), rows_of<float>(m, e), rows_of<float>(v, e),
           rows_of<float>(direction, e), float(beta1), float(beta2), float(1 - beta1),
           float(1 - beta2), float(eps), std::log(beta1), std::log(beta2), step.data<double>()},
      e, {&gradient, &m, &v, &direction});
}

void CudaEngine::momentum(const Tensor& gradient, Tensor& m, Tensor& u, double decay, double weight,
                          double from_m, double from_g) const {
  Doing doing("momentum", {&gradient, &m, &u});
  check_same("momentum", gradient, m);
  check(u.shape() == m.shape(), [&] { return "momentum: " + text(m) + " into " + text(u); });
  check_fp32("momentum", {&m});
  Extent e = extent_of(gradient, m, u);
  dispatch_single(u.dtype(), "momentum", [&](auto type) {
    using U = decltype(type);
    launch_elementwise(
        Momentum<U>{rows_of<float>(gradient, e), rows_of<float>(m, e), rows_of<U>(u, e),
                    float(decay), float(weight), float(from_m), float(from_g)},
        e, {&gradient, &m, &u});
  });
}

void CudaEngine::clip_factor(const Tensor& squares, double limit, Tensor& factor) const {
  Doing doing("clip_factor", {&squares, &factor});
  auto single = [](const Tensor& x) { return x.dtype() == DType::f32 ? x.data<float>() : nullptr; };
  auto wide = [](const Tensor& x) { return x.dtype() == DType::f32 ? nullptr : x.data<double>(); };
  launch(cuda::clip_factor, 1, 1, 0, single(squares), wide(squares), limit, single(factor),
         wide(factor));
}

void CudaEngine::normalizers(Tensor& bank, double eps, Tensor& f, Tensor& squared) const {
  Doing doing("normalizers", {&bank, &f, &squared});
  int64_t count = bank.shape()[0];
  check(bank.contiguous() && f.numel() == count && squared.numel() == count, [&] {
    return "normalizers: " + text(bank) + " into " + text(f) + " and " + text(squared);
  });
  if (bank.numel() == 0) return;
  Tensor squares({count}, DType::f64, Device::cuda);
  sum_of_squares(bank, squares);
  Extent e{count, bank.numel() / count};
  dispatch_single(bank.dtype(), "normalizers", [&](auto type) {
    using T = decltype(type);
    constexpr int N = kNeighbours<T>;
    dim3 grid{unsigned(std::min<int64_t>(16, ceil_div(e.cols, 256 * N))), unsigned(count)};
    launch(cuda::normalizers<T>, grid, 256, 0, rows_of<T>(bank, e), e.cols, wide(N, e, {&bank}),
           squares.data<double>(), eps, f.data<float>(), squared.data<float>());
  });
}

}  // namespace murmur
