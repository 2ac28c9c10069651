// tensor/kernel/team_cpu.h - kernels on the CPU: pieces of rows over OpenMP's threads, the elements
// of a row in the vector lanes of one core.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "tensor/cpu/gemm.h"  // which instructions there are
#include "tensor/cpu/parallel.h"
#include "tensor/kernel/operands.h"

namespace murmur::cpu {

KERNEL float fast_exp(float x) { return exp_of(x); }
KERNEL double fast_exp(double x) { return exp_of(x); }

// Calls f(x) with what is only known at run time (is it there? is it added to?) as a type: outside
// of the loop over a row's elements, which then has no branches.
template <class F, class X>
KERNEL auto settle_one(const F& f, const X& x) {
  return f(x);
}
template <class F, class T>
KERNEL auto settle_one(const F& f, const OptionalIn<T>& x) {
  return x ? f(x.in()) : f(Uniform<Compute<T>>{x.otherwise});
}
template <class F, class T>
KERNEL auto settle_one(const F& f, const OptionalOut<T>& x) {
  return x ? f(Out<T>{{x.p, x.stride}}) : f(Uniform<Compute<T>>{});
}
template <class F, class T>
KERNEL auto settle_one(const F& f, const Accumulate<T>& x) {
  return x.adds ? f(Accumulate<T, std::true_type>{{x.p, x.stride}}) : f(Out<T>{{x.p, x.stride}});
}
template <class F, class T>
KERNEL auto settle_one(const F& f, const Broadcast<T>& x) {
  return x.single ? f(Uniform<Compute<T>>{x.get(0)}) : f(x.in());
}
template <class F>
KERNEL auto settle(const F& f) {
  return f();
}
template <class F, class X, class... R>
KERNEL auto settle(const F& f, const X& x, const R&... rest) {
  auto with = [&](const auto& s) KERNEL_LAMBDA {
    return settle([&](const auto&... t) KERNEL_LAMBDA { return f(s, t...); }, rest...);
  };
  return settle_one(with, x);
}

// One core, at work on a row of `size` elements.
struct Team {
  int64_t size;
  static constexpr bool leads() { return true; }  // is it this thread that writes a row's numbers?
  static constexpr bool owns(int64_t) { return true; }  // does this thread write this element?

  // Calls f(number of each operand...) for all elements.
  template <class F, class... X>
  KERNEL void each(const F& f, const X&... x) const {
    int64_t n = size;
    settle([&](const auto&... s) KERNEL_LAMBDA { run(n, f, s...); }, x...);
  }
  template <class F, class... X>
  KERNEL auto sum(const F& f, const X&... x) const {
    int64_t n = size;
    return settle([&](const auto&... s) KERNEL_LAMBDA { return add_up(n, f, s...); }, x...);
  }
  // Of the first `count` numbers: the largest, m, passing over NaN, and the sum of e^(x - m).
  template <class X>
  KERNEL auto max_sum_exp(int64_t count, const X& x) const {
    using C = typename X::C;
    C m = largest(count, x);
    struct {
      C max, sum;
    } both = {m, add_up(
                     count, [m](C v) KERNEL_LAMBDA { return fast_exp(v - m); }, x)};
    return both;
  }
  // x, for several passes. (In registers, on a GPU.)
  template <class X>
  KERNEL X hold(const X& x) const {
    return x;
  }
  // y <- f(x...), held.
  template <class F, class T, class... X>
  KERNEL In<T> write(const Out<T>& y, const F& f, const X&... x) const {
    each([&](auto& to, auto... v) KERNEL_LAMBDA { to = f(v...); }, y, x...);
    return {{y.p, y.stride}};
  }
  // y <- 0 from element `first` on
  template <class T>
  KERNEL void clear_from(int64_t first, const Out<T>& y) const {
    std::fill(y.p + first, y.p + size, T());
  }

 private:
  template <class F, class... S>
  KERNEL static void run(int64_t n, const F& f, const S... s) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) apply<1>(f, Index{i}, s...);
  }
  template <class F, class... S>
  KERNEL static auto add_up(int64_t n, const F& f, const S... s) {
    decltype(f(typename S::C()...)) total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; i++) total += f(s.template load<1>(Index{i})[0]...);
    return total;
  }
  template <class S>
  KERNEL static auto largest(int64_t n, const S s) {
    using C = typename S::C;
    C m = C(-INFINITY);
#pragma omp simd reduction(max : m)
    for (int64_t i = 0; i < n; i++) {
      C v = s.template load<1>(Index{i})[0];
      m = v > m ? v : m;
    }
    return m;
  }
};

// Where all loops over pieces start: what a piece calls is inlined here. Where the whole program is
// compiled for AVX2, a second time for AVX-512, to be picked where it runs.
template <class F>
__attribute__((flatten)) void over_piece(const F& f, int64_t begin, int64_t end) {
  f(begin, end);
}
#if !defined(__AVX512F__) && !defined(__clang__)
template <class F>
__attribute__((flatten, target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"))) void
over_piece_avx512(const F& f, int64_t begin, int64_t end) {
  f(begin, end);
}
#endif
template <class F>
void over_pieces(int64_t count, int64_t grain, const F& f) {
  auto* over = over_piece<F>;
#if !defined(__AVX512F__) && !defined(__clang__)
  if (&gemm_kernel() != &gemm_avx2) over = over_piece_avx512<F>;
#endif
  parallel_for(count, grain, [&](int64_t begin, int64_t end) { over(f, begin, end); });
}

// f(number of each operand...) for all elements of e.
template <class F, class... X>
void for_each_element(Extent e, const F& f, const X&... x) {
  int64_t bytes = (x.bytes(e) + ...);
  // Whole cache lines of whatever type: pieces start where the tensor's vectors do.
  int64_t cut = (grain_for(e.cols, bytes) + 63) / 64 * 64;
  if (cut >= e.cols) {
    over_pieces(e.rows, grain_for(e.rows, bytes * e.cols), [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) Team{e.cols}.each(f, x.at(Row{r, r})...);
    });
    return;
  }
  int64_t cuts = (e.cols + cut - 1) / cut, pieces = e.rows * cuts;
  over_pieces(pieces, (pieces + 255) / 256, [=](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; k++) {
      int64_t r = k / cuts, i = k % cuts * cut;
      Team{std::min(cut, e.cols - i)}.each(f, x.at(Row{r, r}).from(i)...);
    }
  });
}

// Pieces of rows that have sums over rows of their own.
inline int64_t column_grain(int64_t rows) { return std::max<int64_t>(16, (rows + 63) / 64); }
inline int64_t column_pieces(int64_t rows) {
  return (rows + column_grain(rows) - 1) / column_grain(rows);
}
// What a piece of rows sees of an operand.
template <class X>
KERNEL const X& of_piece(const X& x, int64_t, int64_t) {
  return x;
}
template <class C>
KERNEL InOut<C> of_piece(const ColumnSum<C>& x, int64_t piece, int64_t cols) {
  InOut<C> sum = x.piece(piece);
  std::fill(sum.p, sum.p + cols, C(0));
  return sum;
}

// f(team, row, each operand's part of the row...) for all rows of e.
template <class F, class... X>
void for_each_row(Extent e, const F& f, const X&... x) {
  constexpr bool kSums = (std::is_same_v<X, ColumnSum<typename X::C>> || ...);
  int64_t grain = kSums ? column_grain(e.rows) : grain_for(e.rows, (x.bytes(e) + ...) * e.cols);
  over_pieces(e.rows, grain, [=](int64_t begin, int64_t end) {
    [&](const auto&... own) {
      for (Row r{begin, begin / e.group, int(begin % e.group)}; r.index < end; r.index++) {
        f(Team{e.cols}, r, own.at(r)...);
        if (++r.inner == e.group) r.inner = 0, r.outer++;
      }
    }(of_piece(x, begin / grain, e.cols)...);
  });
}

// first (+)= the sum of partial[0] over its pieces, in order, and second that of partial[1].
inline void add_pieces(const Tensor& partial, const Into& first, const Into& second) {
  dispatch(partial.dtype(), [&](auto type) {
    using C = Compute<decltype(type)>;
    int64_t pieces = partial.shape()[1], n = partial.cols();
    In<C> part{{partial.data<C>(), n}};
    for (const Into& sum : {first, second}) {
      if (sum.tensor) {
        InOut<C> y{{sum.tensor.data<C>(), n}};
        if (!sum.accumulate) std::fill(y.p, y.p + n, C(0));
        for (int64_t k = 0; k < pieces; k++)
          for_each_element(
              {1, n}, [](C x, C& y) { y += x; }, part.from(k * n), y);
      }
      part = part.from(pieces * n);
    }
  });
}

}  // namespace murmur::cpu
