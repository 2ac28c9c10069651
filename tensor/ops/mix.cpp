// tensor/ops/mix.cpp - mixing with neighbours in a graph of ranks.
//
//   y = x + sum_j weights[j] (theirs[j] - own)
#include <string>
#include <vector>

#include "tensor/kernel/launch.h"
#include "tensor/ops/functions.h"

namespace murmur::MURMUR_DEVICE {
namespace {

// The sum, as an operand; it goes on from `before`. What it knows of the neighbours are parameters
// of a GPU's kernel: that is why one launch has only so many.
template <class T, class Q>
struct Correction {
  using C = T;
  static constexpr int kBytes = sizeof(Q), kMost = 128;
  OptionalIn<T> before;
  In<Q> own;
  int64_t begin = 0, cols = 0;  // of the part of the tensor that a launch is for
  int count = 0;
  T weights[kMost] = {};
  In<Q> theirs[kMost] = {};

  // No more than 48, so that nobody cuts a row.
  int64_t bytes(Extent) const { return std::min(kBytes * (count + 1), 48); }
  bool aligned(int n) const {
    return std::all_of(theirs, theirs + count, [n](const In<Q>& x) { return x.aligned(n); }) &&
           before.aligned(n) && own.aligned(n);
  }

#ifdef MURMUR_GPU_KERNELS
  static constexpr int64_t kRow = INT64_MAX;  // the whole tensor

  KERNEL const Correction& at(Row) const { return *this; }
  template <int N>
  KERNEL Pack<T, N> load(Index at) const {
    Pack<T, N> mine = own.template load<N>(at), sum = before.template load<N>(at);
#pragma unroll 4
    for (int j = 0; j < count; j++) {  // the numbers of several neighbours are under way at once
      Pack<T, N> x = theirs[j].template load<N>(at);
      for (int i = 0; i < N; i++) sum[i] += weights[j] * (x[i] - mine[i]);
    }
    return sum;
  }
  template <int N>
  KERNEL void store(const Pack<T, N>&, Index) const {}
#else
  // The sum over neighbours stays in the first-level cache, and with it its part of `own`.
  static constexpr int64_t kRow = 1024;

  KERNEL In<T> at(Row r) const {
    alignas(64) static thread_local T sums[kRow];
    int64_t i = begin + r.index * kRow;
    Team team{cols};
    InOut<T> sum{{sums, 0}};
    team.each([](T x, T& s) KERNEL_LAMBDA { s = x; }, before.from(i), sum);
    for (int j = 0; j < count; j++) {
      T weight = weights[j];
      team.each([weight](Compute<Q> x, Compute<Q> mine, T& s)
                    KERNEL_LAMBDA { s += weight * (T(x) - T(mine)); },
                theirs[j].from(i), own.from(i), sum);
    }
    return {{sums, 0}};
  }
#endif
};

struct Correct {
  template <class T>
  KERNEL void operator()(T x, T correction, T& y) const {
    y = x + correction;
  }
};

void check_mix(const Tensor& x, const Tensor& own, const std::vector<Tensor>& theirs,
               const std::vector<double>& weights, const Tensor& y) {
  check_same(x, y);
  check_shape(own, x);
  check(x.dtype() == compute_type(x.dtype()),
        [&] { return "into " + text(y) + ", but sums want fp32 or fp64"; });
  check(theirs.size() == weights.size(), [&] {
    return std::to_string(theirs.size()) + " neighbours, " + std::to_string(weights.size()) +
           " weights";
  });
  for (const Tensor* tensor : {&x, &own, &y}) check_contiguous(*tensor);
  for (const Tensor& their : theirs) {
    check_same(own, their);
    check_contiguous(their);
  }
}

}  // namespace

// More neighbours than one launch takes: the sum of the first ones waits in memory, for the last
// launch to add it to x.
void mix(const Tensor& x, const Tensor& own, const std::vector<Tensor>& theirs,
         const std::vector<double>& weights, Tensor& y) {
  check_mix(x, own, theirs, weights, y);
  dispatch_compute(x.dtype(), [&](auto type) {
    dispatch_kernel(own.dtype(), [&](auto sent) {
      using T = decltype(type);
      using Q = decltype(sent);
      using Sum = Correction<T, Q>;
      size_t next = 0;
      Tensor sum;
      do {
        Extent flat{1, x.numel()};
        Sum correction{optional_in<T>(sum, flat), in<Q>(own, flat)};
        for (; next < theirs.size() && correction.count < Sum::kMost; next++, correction.count++) {
          correction.weights[correction.count] = T(weights[next]);
          correction.theirs[correction.count] = in<Q>(theirs[next], flat);
        }
        bool last = next == theirs.size();
        if (!last && !sum) sum = Tensor(x.shape(), x.dtype(), x.device());
        auto run = [&](int64_t begin, Extent e) {
          correction.begin = begin, correction.cols = e.cols;
          for_each_element(e, Correct{}, optional_in<T>(last ? x : Tensor(), e).from(begin),
                           correction, out<T>(last ? y : sum, e).from(begin));
        };
        int64_t rows = flat.cols / Sum::kRow, rest = flat.cols % Sum::kRow;
        if (rows > 0) run(0, {rows, Sum::kRow});
        if (rest > 0) run(flat.cols - rest, {1, rest});
      } while (next < theirs.size());
    });
  });
}

}  // namespace murmur::MURMUR_DEVICE
