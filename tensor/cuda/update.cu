// tensor/cuda/update.cu - the passes over parameters and optimizer state.
#include <type_traits>

#include "tensor/checks.h"
#include "tensor/cuda/elementwise.h"
#include "tensor/ops/functions.h"

namespace murmur::cuda {

struct Descend {
  float decay;
  bool cautious;
  __device__ void operator()(float rate, float d, float& w, float& shadow) const {
    float keep = cautious && !(d * w >= 0) ? 1.f : 1 - rate * decay;
    shadow = w = keep * w - rate * d;
  }
};

// 1 / (1 - beta^t), made by every thread while its loads are under way.
struct BiasCorrection {
  double log_beta;
  const double* step;
  __device__ float operator()(int64_t) const { return -1.f / expm1f(float(*step * log_beta)); }
};

struct Adam {
  float beta1, beta2, rest1, rest2, eps;
  __device__ void operator()(float correction1, float correction2, float g, float& m, float& v,
                             float& direction) const {
    m = beta1 * m + rest1 * g;
    v = beta2 * v + rest2 * g * g;
    direction = m * correction1 / (sqrt_of(v * correction2) + eps);
  }
};

struct Momentum {
  float decay, weight, from_m, from_g;
  __device__ void operator()(float g, float& m, float& u) const {
    m = decay * m + weight * g;
    u = from_m * m + from_g * g;
  }
};

template <class S, class T>
__global__ void clip_factor(const S* squares, double limit, bool exactly, T* factor) {
  double norm = sqrt(double(*squares)), f = limit / (norm + 1e-6);
  f = f > 1 ? 1 : f;  // NaN stays
  *factor = T(!exactly ? f : norm == 0 ? 0 : limit / norm);
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

namespace {

void check_fp32(const Tensor& x) {
  check(x.dtype() == DType::f32,
        [&] { return std::string("not for ") + text(x) + " on this device"; });
}

// f(where the number lies), in fp32 or fp64.
template <class F>
void with_number(const Tensor& x, const F& f) {
  x.dtype() == DType::f64 ? f(x.data<double>()) : f(x.data<float>());
}

}  // namespace

void apply_update(const Factor& rate, double decay, bool cautious, const Tensor& d, Tensor& w,
                  Tensor& shadow) {
  check_shape(d, w);
  if (shadow) check_shape(d, shadow);
  check_fp32(w);
  Extent e = shadow ? extent_of(w, d, shadow) : extent_of(w, d);
  auto r = factor_of(rate, e);
  dispatch_single(d.dtype(), [&](auto type) {
    launch_elementwise(Descend{float(decay), cautious}, e, r, in<decltype(type)>(d, e),
                       out<float>(w, e, true), out<bf16>(shadow, e));
  });
}

void adam(const Tensor& gradient, Tensor& m, Tensor& v, Tensor& direction, double beta1,
          double beta2, double eps, const Tensor& step) {
  for (const Tensor* x : {&m, &v, &direction}) check_same(gradient, *x);
  check_fp32(gradient);
  Extent e = extent_of(gradient, m, v, direction);
  auto correction = [&](double beta) {
    return Each<BiasCorrection>{{std::log(beta), step.data<double>()}};
  };
  launch_elementwise(
      Adam{float(beta1), float(beta2), float(1 - beta1), float(1 - beta2), float(eps)}, e,
      correction(beta1), correction(beta2), in<float>(gradient, e), out<float>(m, e, true),
      out<float>(v, e, true), out<float>(direction, e));
}

void momentum(const Tensor& gradient, Tensor& m, Tensor& u, double decay, double weight,
              double from_m, double from_g) {
  check_same(gradient, m);
  check_shape(m, u);
  check_fp32(m);
  Extent e = extent_of(gradient, m, u);
  dispatch_single(u.dtype(), [&](auto type) {
    launch_elementwise(Momentum{float(decay), float(weight), float(from_m), float(from_g)}, e,
                       in<float>(gradient, e), out<float>(m, e, true), out<decltype(type)>(u, e));
  });
}

void clip_factor(const Tensor& squares, double limit, bool exactly, Tensor& factor) {
  with_number(squares, [&](auto* from) {
    with_number(factor, [&](auto* to) {
      using S = std::remove_pointer_t<decltype(from)>;
      using T = std::remove_pointer_t<decltype(to)>;
      launch(cuda::clip_factor<S, T>, 1, 1, 0, from, limit, exactly, to);
    });
  });
}

void normalizers(Tensor& bank, double eps, Tensor& f, Tensor& squared) {
  int64_t count = bank.shape()[0];
  check(bank.contiguous() && f.numel() == count && squared.numel() == count,
        [&] { return text(bank) + " into " + text(f) + " and " + text(squared); });
  if (bank.numel() == 0) return;
  Tensor squares({count}, DType::f64, Device::cuda);
  sum_of_squares(bank, squares);
  Extent e{count, bank.numel() / count};
  dispatch_single(bank.dtype(), [&](auto type) {
    using T = decltype(type);
    constexpr int N = kNeighbours<T>;
    dim3 grid{unsigned(std::min<int64_t>(16, ceil_div(e.cols, 256 * N))), unsigned(count)};
    Rows<T> rows = rows_of<T>(bank, e);
    launch(cuda::normalizers<T>, grid, 256, 0, rows, e.cols, rows.wide(N), squares.data<double>(),
           eps, f.data<float>(), squared.data<float>());
  });
}

}  // namespace murmur::cuda
