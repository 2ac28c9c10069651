// tensor/kernel/operands.h - what a kernel works on.
//
// Host code makes an operand of a tensor: in<T>(x, extent). A launcher asks it for its part of one
// row, at(row), and there load<N>() brings N neighbours into registers, as Compute<T>, and store()
// puts them back. N is 1 on the CPU, where the compiler makes vectors of the loop; on a GPU a
// thread moves 16 bytes at a time.
//
//   In, Out, InOut            read, written, both
//   Accumulate                of an Into: written or added to; may be no tensor
//   OptionalIn, OptionalOut   may be no tensor: then a constant is read, what is written is lost
//   Broadcast                 fewer rows, used over and over; or one number for all
//   PerRow, DeviceScalar      one number for all of a row, made by the kernel
//   ColumnSum                 sums over rows, column by column
//
// A kernel is compiled twice, by g++ for the CPU and by nvcc (or g++ over tests/cuda_on_cpu/) for a
// GPU, in the namespace MURMUR_DEVICE: cpu or cuda.
#pragma once

#include <algorithm>

#include "tensor/dispatch.h"
#include "tensor/op.h"  // Into, Factor

#if defined(__CUDACC__) || defined(MURMUR_CUDA_ON_CPU)
#include "tensor/cuda/vector.h"
#define MURMUR_GPU_KERNELS
#define MURMUR_DEVICE cuda
#else
#define MURMUR_DEVICE cpu
#endif
#ifdef __CUDACC__
#define KERNEL __device__ __forceinline__
#else
#define KERNEL __attribute__((always_inline)) inline
#endif
#define KERNEL_LAMBDA __attribute__((always_inline))

namespace murmur::MURMUR_DEVICE {

// N neighbours in registers.
template <class C, int N>
struct Pack {
  C v[N];
  KERNEL C& operator[](int j) { return v[j]; }
  KERNEL C operator[](int j) const { return v[j]; }
};
template <int N, class C>
KERNEL Pack<C, N> filled(C value) {
  Pack<C, N> x;
  for (int j = 0; j < N; j++) x[j] = value;
  return x;
}
template <int N, class T>
KERNEL Pack<Compute<T>, N> read(const T* p) {
  Pack<Compute<T>, N> x;
#ifdef MURMUR_GPU_KERNELS
  if constexpr (N > 1) return Vector<T, N>::at(p).unpack(x.v), x;
#endif
  x[0] = Compute<T>(*p);
  return x;
}
template <int N, class T>
KERNEL void write(T* p, const Pack<Compute<T>, N>& x) {
#ifdef MURMUR_GPU_KERNELS
  if constexpr (N > 1) return Vector<T, N>::of(x.v).to(p);
#endif
  *p = T(x[0]);
}

// A row of a launch, and where rows come in groups (the heads of a token): number `inner` of group
// `outer`.
struct Row {
  int64_t index = 0, outer = 0;
  int inner = 0;
};

// Where a pack lies in its row: from element i on. On a GPU it is the thread's piece number
// `piece`.
struct Index {
  int64_t i;
  int piece = 0;
};

// What most operands are: memory with the same stride from row to row, 0 where there is none. at()
// is the part in one row; from() is what begins with element i of it.
template <class T>
struct Strided {
  using Type = T;
  using C = Compute<T>;
  static constexpr int kBytes = sizeof(T);
  T* p = nullptr;
  int64_t stride = 0;

  // How much memory an element of e takes here: a row that is the same for all does not count.
  int64_t bytes(Extent e) const { return p && (stride || e.rows == 1) ? kBytes : 0; }
  // May a kernel move n elements at a time?
  bool aligned(int n) const {
    uint64_t bytes = std::min<uint64_t>(16, uint64_t(n) * sizeof(T));
    return reinterpret_cast<uintptr_t>(p) % bytes == 0 && stride % n == 0;
  }
  KERNEL C get(int64_t i) const { return C(p[i]); }
  KERNEL void put(int64_t i, C value) const { p[i] = T(value); }
};

template <class T>
struct In : Strided<T> {
  using C = Compute<T>;
  KERNEL In from(int64_t i) const { return {{this->p + i, this->stride}}; }
  KERNEL In at(Row r) const { return {{this->p + r.index * this->stride, this->stride}}; }
  template <int N>
  KERNEL Pack<C, N> load(Index at) const {
    return read<N>(this->p + at.i);
  }
  template <int N>
  KERNEL void store(const Pack<C, N>&, Index) const {}
};

template <class T>
struct Out : Strided<T> {
  using C = Compute<T>;
  KERNEL Out from(int64_t i) const { return {{this->p + i, this->stride}}; }
  KERNEL Out at(Row r) const { return {{this->p + r.index * this->stride, this->stride}}; }
  template <int N>
  KERNEL Pack<C, N> load(Index) const {
    return filled<N>(C(0));
  }
  template <int N>
  KERNEL void store(const Pack<C, N>& x, Index at) const {
    write(this->p + at.i, x);
  }
};

template <class T>
struct InOut : Strided<T> {
  using C = Compute<T>;
  KERNEL InOut from(int64_t i) const { return {{this->p + i, this->stride}}; }
  KERNEL InOut at(Row r) const { return {{this->p + r.index * this->stride, this->stride}}; }
  template <int N>
  KERNEL Pack<C, N> load(Index at) const {
    return read<N>(this->p + at.i);
  }
  template <int N>
  KERNEL void store(const Pack<C, N>& x, Index at) const {
    write(this->p + at.i, x);
  }
};

// One number for all of a row.
template <class C_>
struct Uniform {
  using C = C_;
  static constexpr int kBytes = 0;
  C value;

  int64_t bytes(Extent) const { return 0; }
  bool aligned(int) const { return true; }
  KERNEL Uniform at(Row) const { return *this; }
  KERNEL Uniform from(int64_t) const { return *this; }
  template <int N>
  KERNEL Pack<C, N> load(Index) const {
    return filled<N>(value);
  }
  template <int N>
  KERNEL void store(const Pack<C, N>&, Index) const {}
};

template <class T>
struct OptionalIn : Strided<T> {
  using C = Compute<T>;
  C otherwise = 0;

  KERNEL explicit operator bool() const { return this->p; }
  KERNEL In<T> in() const { return {{this->p, this->stride}}; }
  KERNEL OptionalIn from(int64_t i) const {
    return {{this->p ? this->p + i : nullptr, this->stride}, otherwise};
  }
  KERNEL OptionalIn at(Row r) const {
    return {{this->p + r.index * this->stride, this->stride}, otherwise};
  }
  template <int N>
  KERNEL Pack<C, N> load(Index at) const {
    if (this->p) return read<N>(this->p + at.i);
    return filled<N>(otherwise);
  }
  template <int N>
  KERNEL void store(const Pack<C, N>&, Index) const {}
};

template <class T>
struct OptionalOut : Strided<T> {
  using C = Compute<T>;
  KERNEL explicit operator bool() const { return this->p; }
  KERNEL OptionalOut from(int64_t i) const {
    return {{this->p ? this->p + i : nullptr, this->stride}};
  }
  KERNEL OptionalOut at(Row r) const { return {{this->p + r.index * this->stride, this->stride}}; }
  template <int N>
  KERNEL Pack<C, N> load(Index) const {
    return filled<N>(C(0));
  }
  template <int N>
  KERNEL void store(const Pack<C, N>& x, Index at) const {
    if (this->p) write(this->p + at.i, x);
  }
};

// A functor assigns, whether or not that is added to what is there.
template <class C, int N>
struct AddedPack : Pack<C, N> {
  Pack<C, N> old;
};
template <class T, class Flag = bool>
struct Accumulate : Strided<T> {
  using C = Compute<T>;
  Flag adds = {};

  KERNEL explicit operator bool() const { return this->p; }
  KERNEL Accumulate from(int64_t i) const {
    return {{this->p ? this->p + i : nullptr, this->stride}, adds};
  }
  KERNEL Accumulate at(Row r) const {
    return {{this->p + r.index * this->stride, this->stride}, adds};
  }
  template <int N>
  KERNEL AddedPack<C, N> load(Index at) const {
    Pack<C, N> zero = filled<N>(C(0));
    return {zero, adds ? read<N>(this->p + at.i) : zero};
  }
  template <int N>
  KERNEL void store(AddedPack<C, N> x, Index at) const {
    if (!this->p) return;
    for (int j = 0; j < N; j++) x[j] += x.old[j];
    write<N>(this->p + at.i, x);
  }
};

// Rows that are used over and over, one for each group of rows: a bias under all rows, the angles
// of times under the tokens of a batch. Or one number for all.
template <class T>
struct Broadcast : Strided<T> {
  using C = Compute<T>;
  uint32_t rows = 1;
  bool single = false;

  bool aligned(int n) const { return single || Strided<T>::aligned(n); }
  KERNEL In<T> in() const { return {{this->p, this->stride}}; }
  KERNEL Broadcast from(int64_t i) const {
    return {{single ? this->p : this->p + i, this->stride}, rows, single};
  }
  KERNEL Broadcast at(Row r) const {
    uint32_t k = uint32_t(r.outer);
    return {
        {this->p + int64_t(k < rows ? k : k % rows) * this->stride, this->stride}, rows, single};
  }
  template <int N>
  KERNEL Pack<C, N> load(Index at) const {
    if (!single) return read<N>(this->p + at.i);
    return filled<N>(C(*this->p));
  }
  template <int N>
  KERNEL void store(const Pack<C, N>&, Index) const {}
};

// f(row): where it depends on what lies on the device, it is read there.
template <class C, class F>
struct PerRow {
  static constexpr int kBytes = 0;
  F f;
  int64_t bytes(Extent) const { return 0; }
  bool aligned(int) const { return true; }
  KERNEL Uniform<C> at(Row r) const { return {C(f(r))}; }
};
template <class C, class F>
PerRow<C, F> per_row(const F& f) {
  return {f};
}

// A Factor in a kernel: a captured graph sees new values. Rows belong to its parts in equal shares.
struct DeviceScalar {
  double value = 1;
  const void* by = nullptr;
  bool is_double = false;
  uint32_t rows_per_part = 0xffffffffu;

  KERNEL double operator()(Row r) const {
    if (!by) return value;
    uint32_t k = uint32_t(r.index) / rows_per_part;
    return value * (is_double ? static_cast<const double*>(by)[k]
                              : double(static_cast<const float*>(by)[k]));
  }
};
// Cuts e, of contiguous tensors or of rows, so that no row lies in two parts of the factor.
inline DeviceScalar device_scalar(const Factor& factor, Extent& e) {
  if (!factor.by) return {factor.value};
  const Tensor& by = factor.by;
  int64_t parts = by.numel();
  if (parts > 1 && e.rows == 1 && e.cols % parts == 0) e = {parts, e.cols / parts};
  check((by.dtype() == DType::f32 || by.dtype() == DType::f64) && by.contiguous() && parts > 0 &&
            (parts == 1 || e.rows % parts == 0),
        [&] { return "factors " + text(by) + " do not fit"; });
  DeviceScalar s{factor.value, by.raw(), by.dtype() == DType::f64};
  if (parts > 1) s.rows_per_part = uint32_t(e.rows / parts);
  return s;
}

// Sums over rows in a fixed order: every piece of rows (a block's, on a GPU) has a row of partial
// sums to itself, to which a functor adds. ColumnSums (tensor/kernel/launch.h) makes two of these.
template <class C_>
struct ColumnSum : Strided<C_> {
  using C = C_;
  KERNEL InOut<C> piece(int64_t k) const { return {{this->p + k * this->stride, 0}}; }
};

// Operands of tensors, as e.rows rows of e.cols. A contiguous tensor may be cut into any number of
// rows; of one row, nobody needs the stride.
template <class O>
O operand(const Tensor& x, Extent e) {
  O o{};
  if (!x) return o;
  o.p = x.data<typename O::Type>();
  o.stride = e.rows == 1 ? 0 : x.contiguous() ? e.cols : x.row_stride();
  return o;
}
template <class T>
In<T> in(const Tensor& x, Extent e) {
  return operand<In<T>>(x, e);
}
template <class T>
Out<T> out(const Tensor& x, Extent e) {
  return operand<Out<T>>(x, e);
}
template <class T>
InOut<T> in_out(const Tensor& x, Extent e) {
  return operand<InOut<T>>(x, e);
}
template <class T>
OptionalIn<T> optional_in(const Tensor& x, Extent e, Compute<T> otherwise = 0) {
  auto o = operand<OptionalIn<T>>(x, e);
  o.otherwise = otherwise;
  return o;
}
template <class T>
OptionalOut<T> optional_out(const Tensor& x, Extent e) {
  return operand<OptionalOut<T>>(x, e);
}
template <class T>
Accumulate<T> accumulate(const Into& x, Extent e) {
  auto o = operand<Accumulate<T>>(x.tensor, e);
  o.adds = x.tensor && x.accumulate;
  return o;
}
// x has the shape of the last dimensions of what e are rows of, or is one number.
template <class T>
Broadcast<T> broadcast(const Tensor& x, Extent e) {
  Extent own{x.numel() / std::max<int64_t>(e.cols, 1), e.cols};
  if (x.numel() == 1) own = {1, 1};
  auto o = operand<Broadcast<T>>(x, own);
  o.rows = uint32_t(std::max<int64_t>(own.rows, 1)), o.single = x.numel() == 1;
  return o;
}
// Rows as they are.
inline Extent row_extent(const Tensor& x) { return {x.rows(), x.cols()}; }

// Calls f(number of each operand...) for N neighbours.
template <int N, class F, class... X>
KERNEL void apply(const F& f, Index at, const X&... x) {
  [&](auto... v) KERNEL_LAMBDA {
    for (int j = 0; j < N; j++) f(v[j]...);
    (x.store(v, at), ...);
  }(x.template load<N>(at)...);
}

}  // namespace murmur::MURMUR_DEVICE
