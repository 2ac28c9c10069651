// tensor/cuda/zip.cu - y = f(a, b) for every BINARY row of ops.def; b may repeat over a's first
// dimensions.
#include "elementwise_ops.h"  // made by CMake: includes every tensor/ops/*.h
#include "tensor/cuda/cuda_engine.h"
#include "tensor/cuda/elementwise.h"

namespace murmur {
namespace cuda {

// The right operand: `rows` rows over and over, or one number.
template <class T>
struct Right {
  Rows<T> b;
  uint32_t rows;
  bool one;
  template <int N>
  __device__ void load(float (&v)[N], Place p) const {
    p.row = rows == 1 ? 0 : uint32_t(p.row) % rows;
    if (!one) return b.load(v, p);
    for (float& x : v) x = float(*b.data);
  }
};

template <class Op, class T>
struct ZipValue {
  static constexpr int N = kNeighbours<T>;
  Rows<T> a;
  Right<T> b;
  Rows<T> y;
  __device__ void operator()(const Place& p) const {
    float left[N], right[N];
    a.load(left, p);
    b.load(right, p);
    for (int i = 0; i < N; i++) left[i] = Op::value(left[i], right[i]);
    y.store(left, p);
  }
};

template <class Op, bool kLeft, class T>
struct ZipDerivative {
  static constexpr int N = kNeighbours<T>;
  Rows<T> a;
  Right<T> b;
  Rows<T> dy, d;
  bool accumulate;
  __device__ void operator()(const Place& p) const {
    float left[N], right[N], grad[N], sum[N];
    a.load(left, p);
    b.load(right, p);
    dy.load(grad, p);
    d.load_if(accumulate, sum, p);
    for (int i = 0; i < N; i++) {
      sum[i] += grad[i] * (kLeft ? Op::left(left[i], right[i]) : Op::right(left[i], right[i]));
    }
    d.store(sum, p);
  }
};

}  // namespace cuda

using namespace cuda;

namespace {

// True when `small` is the last dimensions of `large`, or a single number.
bool is_suffix(const Shape& small, const Shape& large) {
  if (small.rank() > large.rank()) return small.numel() == 1;
  for (int i = 1; i <= small.rank(); i++) {
    if (small[-i] != large[-i]) return small.numel() == 1;
  }
  return true;
}

void check_operands(const char* op, const Tensor& a, const Tensor& b, const Tensor& y) {
  check_same(op, a, y);
  check(a.dtype() == b.dtype() && is_suffix(b.shape(), a.shape()), [&] {
    return std::string(op) + ": " + text(a) + " with " + text(b) +
           ": the right side must have the left side's last dimensions";
  });
}

// The longest rows over which b need not start again.
template <class... Others>
Extent extent_with(const Tensor& b, const Tensor& a, const Others&... others) {
  if (b.numel() == 1) return extent_of(a, others...);
  return a.shape() == b.shape() ? extent_of(a, b, others...) : Extent{a.rows(), a.cols()};
}
template <class T>
Right<T> right_of(const Tensor& b, const Tensor& a, Extent e) {
  bool one = b.numel() == 1, same = a.shape() == b.shape();
  return {rows_of<T>(b, same ? e : Extent{b.rows(), b.cols()}), uint32_t(same ? e.rows : b.rows()),
          one};
}

// Calls f with the functor of op and the element type as values.
template <class F>
void with_binary(Binary op, DType dtype, const F& f) {
  dispatch_single(dtype, "zip", [&](auto type) {
    switch (op) {
#define UNARY(name, Functor, low, high, summary)
#define BINARY(name, Functor, low, high, summary) \
  case Binary::name:                              \
    return f(Functor{}, type);
#define FUNCTION(name, summary)
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
#undef FUNCTION
    }
  });
}

}  // namespace

void CudaEngine::zip(Binary op, const Tensor& a, const Tensor& b, Tensor& y) const {
  Doing doing("zip", {&a, &b, &y});
  check_operands("zip", a, b, y);
  Extent e = extent_with(b, a, y);
  with_binary(op, a.dtype(), [&](auto functor, auto type) {
    using T = decltype(type);
    ZipValue<decltype(functor), T> f{rows_of<T>(a, e), right_of<T>(b, a, e), rows_of<T>(y, e)};
    launch_elementwise(f, e, {&a, b.numel() == 1 ? &a : &b, &y});
  });
}

void CudaEngine::zip_backward(Binary op, bool left, const Tensor& a, const Tensor& b,
                              const Tensor& dy, Into d) const {
  Doing doing("zip backward", {&a, &b, &dy, &d.tensor});
  check_operands("zip backward", a, b, dy);
  check_same("zip backward", dy, d.tensor);
  Extent e = extent_with(b, a, dy, d.tensor);
  with_binary(op, a.dtype(), [&](auto functor, auto type) {
    using T = decltype(type);
    using Op = decltype(functor);
    auto run = [&](auto f) {
      launch_elementwise(f, e, {&a, b.numel() == 1 ? &a : &b, &dy, &d.tensor});
    };
    Rows<T> a_rows = rows_of<T>(a, e), dy_rows = rows_of<T>(dy, e),
            d_rows = rows_of<T>(d.tensor, e);
    Right<T> right = right_of<T>(b, a, e);
    left ? run(ZipDerivative<Op, true, T>{a_rows, right, dy_rows, d_rows, d.accumulate})
         : run(ZipDerivative<Op, false, T>{a_rows, right, dy_rows, d_rows, d.accumulate});
  });
}

}  // namespace murmur
