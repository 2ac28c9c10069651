// tensor/cuda/map.cu - y = f(x) for every UNARY row of ops.def, and the few maps with a constant.
#include "elementwise_ops.h"  // made by CMake: includes every tensor/ops/*.h
#include "tensor/cuda/cuda_engine.h"
#include "tensor/cuda/elementwise.h"

namespace murmur {
namespace cuda {

template <class Op, class T>
struct Value {
  static constexpr int N = kNeighbours<T>;
  Rows<T> x, y;
  __device__ void operator()(const Place& p) const {
    float v[N];
    x.load(v, p);
    for (int i = 0; i < N; i++) v[i] = Op::value(v[i]);
    y.store(v, p);
  }
};

template <class Op, class T>
struct Derivative {
  static constexpr int N = kNeighbours<T>;
  Rows<T> x, dy, dx;
  bool accumulate;
  __device__ void operator()(const Place& p) const {
    float v[N], d[N], sum[N];
    x.load(v, p);
    dy.load(d, p);
    dx.load_if(accumulate, sum, p);
    for (int i = 0; i < N; i++) sum[i] += d[i] * Op::derivative(v[i]);
    dx.store(sum, p);
  }
};

template <class T, class U>
struct Scale {
  static constexpr int N = kNeighbours<T, U>;
  Rows<T> x;
  Rows<U> y;
  DeviceFactor alpha;
  bool accumulate;
  __device__ void operator()(const Place& p) const {
    float v[N], sum[N], a = float(alpha(p.row));
    x.load(v, p);
    y.load_if(accumulate, sum, p);
    for (int i = 0; i < N; i++) sum[i] += a * v[i];
    y.store(sum, p);
  }
};

template <class T>
struct Lerp {
  static constexpr int N = kNeighbours<T>;
  Rows<T> x, y;
  float a, b;
  __device__ void operator()(const Place& p) const {
    float v[N], old[N];
    x.load(v, p);
    y.load(old, p);
    for (int i = 0; i < N; i++) old[i] = b * old[i] + a * v[i];
    y.store(old, p);
  }
};

}  // namespace cuda

using namespace cuda;

namespace {

// Calls f with the functor of op and the element type as values.
template <class F>
void with_unary(Unary op, DType dtype, const F& f) {
  dispatch_single(dtype, "map", [&](auto type) {
    switch (op) {
#define UNARY(name, Functor, low, high, summary) \
  case Unary::name:                              \
    return f(Functor{}, type);
#define BINARY(name, Functor, low, high, summary)
#define FUNCTION(name, summary)
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
#undef FUNCTION
    }
  });
}

}  // namespace

void CudaEngine::map(Unary op, const Tensor& x, Tensor& y) const {
  Doing doing("map", {&x, &y});
  check_same("map", x, y);
  Extent e = extent_of(x, y);
  with_unary(op, x.dtype(), [&](auto functor, auto type) {
    using T = decltype(type);
    Value<decltype(functor), T> f{rows_of<T>(x, e), rows_of<T>(y, e)};
    launch_elementwise(f, e, {&x, &y});
  });
}

void CudaEngine::map_backward(Unary op, const Tensor& x, const Tensor& dy, Into dx) const {
  Doing doing("map backward", {&x, &dy, &dx.tensor});
  check_same("map backward", x, dy);
  check_same("map backward", x, dx.tensor);
  Extent e = extent_of(x, dy, dx.tensor);
  with_unary(op, x.dtype(), [&](auto functor, auto type) {
    using T = decltype(type);
    Derivative<decltype(functor), T> f{rows_of<T>(x, e), rows_of<T>(dy, e),
                                       rows_of<T>(dx.tensor, e), dx.accumulate};
    launch_elementwise(f, e, {&x, &dy, &dx.tensor});
  });
}

void CudaEngine::scale(const Factor& alpha, const Tensor& x, Into y) const {
  Doing doing("scale", {&x, &y.tensor});
  check(x.shape() == y.tensor.shape(),
        [&] { return "scale: " + text(x) + " into " + text(y.tensor); });
  Extent e = extent_of(x, y.tensor);
  DeviceFactor a = factor_of("scale", alpha, e);
  dispatch_single(x.dtype(), "scale", [&](auto type) {
    dispatch_single(y.tensor.dtype(), "scale", [&](auto out_type) {
      using T = decltype(type);
      using U = decltype(out_type);
      launch_elementwise(Scale<T, U>{rows_of<T>(x, e), rows_of<U>(y.tensor, e), a, y.accumulate}, e,
                         {&x, &y.tensor});
    });
  });
}

void CudaEngine::lerp(double t, const Tensor& x, Tensor& y) const {
  Doing doing("lerp", {&x, &y});
  check_same("lerp", x, y);
  Extent e = extent_of(x, y);
  dispatch_single(x.dtype(), "lerp", [&](auto type) {
    using T = decltype(type);
    launch_elementwise(Lerp<T>{rows_of<T>(x, e), rows_of<T>(y, e), float(t), float(1 - t)}, e,
                       {&x, &y});
  });
}

}  // namespace murmur
