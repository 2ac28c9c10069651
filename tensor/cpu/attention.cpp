// tensor/cpu/attention.cpp - causal attention in blocks of queries; the T x T scores never exist
// (recomputation in backward: Dao et al., 2022).
//
//   S = q k^T                        P = e^(S / sqrt(D)), row by row over keys up to the query
//   y = P v / sum P                  lse = log sum P                       kept for backward
//   P = e^(S / sqrt(D) - lse)        dv = P^T dy      dP = dy v^T      dS = P (dP - sum(dy y))
//   dq = dS k / sqrt(D)              dk = dS^T q / sqrt(D)
//
// One task is one head of one sequence, so all sums have one order. All products are those of
// product.h, on rows where they lie in the packed tensor; P and dS are rounded to its type. They
// leave out what the causal mask does: keys after the last query of a strip.
#include <omp.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/product.h"
#include "tensor/cpu/transpose.h"  // kLanes
#include "tensor/dispatch.h"
#include "tensor/ops/functions.h"
#include "tensor/ops/maximum.h"

namespace murmur::cpu {
namespace {

constexpr int64_t kQueries = 96;  // of one block
constexpr int64_t kUnseen = 64;   // of keys: zeros behind those that a query sees

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

struct Geometry {
  int64_t batch, time, heads, size;                                  // B, T, H, D
  double scale;                                                      // 1 / sqrt(D)
  int64_t width() const { return heads * size; }                     // of a plain row
  int64_t stride() const { return 3 * width(); }                     // of a packed one
  int64_t row() const { return round_up(time, 32) + kUnseen + 32; }  // of P
};

Geometry geometry_of(int64_t heads, const Tensor& qkv) {
  check(qkv.shape().rank() == 3 && heads > 0 && qkv.cols() % (3 * heads) == 0 && qkv.contiguous(),
        [&] { return text(qkv) + " is no (B, T, 3 H D) of " + std::to_string(heads) + " heads"; });
  Geometry g{qkv.shape()[0], qkv.shape()[1], heads, qkv.cols() / (3 * heads), 0};
  g.scale = 1 / std::sqrt(double(g.size));
  return g;
}

// n is a number of whole vectors, often a few: too short for general loops to reach their speed.
template <class C, class F>
void each_vector(int64_t n, const F& f) {
  for (int64_t j = 0; j < n; j += kLanes<C>) {
#pragma omp simd
    for (int64_t lane = j; lane < j + kLanes<C>; lane++) f(lane);
  }
}

// One number out of n: f(.. f(f(row[0], row[1]), ..), in the order of a tree.
template <class C, class F>
C fold_row(int64_t n, const C* row, const F& f) {
  typename VectorOf<C>::type all, next;
  std::memcpy(&all, row, sizeof all);
  for (int64_t j = kLanes<C>; j < n; j += kLanes<C>) {
    std::memcpy(&next, row + j, sizeof next);
    all = f(all, next);
  }
  return fold(all, f)[0];
}

// Of one vector, all lanes from the count-th on become `value`.
template <class C>
void mask_after(int64_t count, C value, C* vector) {
  typename VectorOf<C>::type v, lane;
  for (int64_t i = 0; i < kLanes<C>; i++) lane[i] = C(i);
  std::memcpy(&v, vector, sizeof v);
  v = lane < C(count) ? v : value - typename VectorOf<C>::type{};
  std::memcpy(vector, &v, sizeof v);
}

// What a thread needs beside the tensors.
template <class T>
struct Workspace {
  using C = Compute<T>;
  T *p, *ds;            // (kQueries, g.row())
  C *dk, *dv, *of_row;  // (T, D), (T, D), (T)
  int64_t bytes = 0;
  Workspace(const Geometry& g, char* memory) {
    auto take = [&](auto*& to, int64_t count) {
      to = reinterpret_cast<std::remove_reference_t<decltype(to)>>(memory + bytes);
      bytes += round_up(count * int64_t(sizeof *to), 64);
    };
    take(p, kQueries * g.row());
    take(ds, kQueries * g.row());
    take(dk, g.time * g.size);
    take(dv, g.time * g.size);
    take(of_row, g.time);
  }
  // What a query does not see, as far as a strip of the largest tile reads.
  void clear_after(T* end) const { std::memset(static_cast<void*>(end), 0, kUnseen * sizeof(T)); }
};

// q k^T or dy v^T of m queries from `begin` on: calls f(i, row, n) for each, with its sums over the
// keys that it sees, in n places: whole vectors, with `beyond` in the rest of the last one.
template <class T, class F>
void over_size(const Geometry& g, int64_t begin, int64_t m, Operand<T> queries, const T* keys,
               Compute<T> beyond, const F& f) {
  constexpr int64_t L = kLanes<Compute<T>>;
  queries.data = queries.at(begin, 0);
  auto finish = [=, &f](int64_t first, int64_t height, Compute<T>* sums, int64_t stride) {
    for (int64_t i = first; i < first + height; i++, sums += stride) {
      int64_t seen = begin + i + 1, last = (seen - 1) / L * L;
      mask_after(seen - last, beyond, sums + last);
      f(i, sums, last + L);
    }
  };
  multiply<T>({.m = m,
               .n = begin + m,
               .k = g.size,
               .a = queries,
               .b = {keys, g.stride(), true},
               .lower = true,
               .diagonal = begin},
              finish);
}

// P v or dS k of the same queries: calls f(i, row) for each.
template <class T, class F>
void over_keys(const Geometry& g, int64_t begin, int64_t m, const T* weights, const T* keys,
               const F& f) {
  auto finish = [&](int64_t first, int64_t height, const Compute<T>* sums, int64_t stride) {
    for (int64_t i = first; i < first + height; i++, sums += stride) f(i, sums);
  };
  multiply<T>({.m = m,
               .n = g.size,
               .k = begin + m,
               .a = {weights, g.row()},
               .b = {keys, g.stride()},
               .left_is_lower = true,
               .diagonal = begin},
              finish);
}

// sums += P^T dy or dS^T q of the same queries, for every key.
template <class T>
void over_queries(const Geometry& g, int64_t begin, int64_t m, const T* weights, Operand<T> queries,
                  Compute<T>* sums) {
  queries.data = queries.at(begin, 0);
  multiply<T>({.m = begin + m,
               .n = g.size,
               .k = m,
               .a = {weights, g.row(), true},
               .b = queries,
               .left_is_upper = true,
               .diagonal = begin,
               .sums = sums,
               .stride = g.size,
               .accumulate = true},
              [](int64_t, int64_t, Compute<T>*, int64_t) {});
}

template <class T>
void head_forward(const Geometry& g, const T* qkv, T* y, Compute<T>* lse, const Workspace<T>& w) {
  using C = Compute<T>;
  const T *k = qkv + g.width(), *v = k + g.width();
  const C scale = C(g.scale);
  for (int64_t begin = 0; begin < g.time; begin += kQueries) {
    int64_t m = std::min(kQueries, g.time - begin);
    over_size<T>(g, begin, m, {qkv, g.stride()}, k, C(-INFINITY), [&](int64_t i, C* s, int64_t n) {
      T* p = w.p + i * g.row();
      C top = fold_row(n, s, [](auto a, auto b) { return b > a ? b : a; });
      each_vector<C>(n, [=](int64_t j) {
        s[j] = exp_of(scale * (s[j] - top));  // 1 at the top, however large that is
        p[j] = T(s[j]);
      });
      w.clear_after(p + n);
      w.of_row[i] = fold_row(n, s, [](auto a, auto b) { return a + b; });
      lse[begin + i] = scale * top + log_of(w.of_row[i]);
    });
    over_keys<T>(g, begin, m, w.p, v, [&](int64_t i, const C* sums) {
      C inverse = C(1) / w.of_row[i];
      T* out = y + (begin + i) * g.width();
#pragma omp simd
      for (int64_t d = 0; d < g.size; d++) out[d] = T(sums[d] * inverse);
    });
  }
}

template <class T>
void head_backward(const Geometry& g, const T* qkv, const T* y, const Compute<T>* lse, const T* dy,
                   T* dqkv, bool accumulate, const Workspace<T>& w) {
  using C = Compute<T>;
  const T *k = qkv + g.width(), *v = k + g.width();
  const C scale = C(g.scale);
  auto store = [&](T* to, C factor, const C* sums) {
#pragma omp simd
    for (int64_t d = 0; d < g.size; d++)
      to[d] = T(factor * sums[d] + (accumulate ? C(to[d]) : C(0)));
  };
  std::fill(w.dk, w.dk + g.time * g.size, C(0));
  std::fill(w.dv, w.dv + g.time * g.size, C(0));
  for (int64_t t = 0; t < g.time; t++) {
    const T *out = y + t * g.width(), *dout = dy + t * g.width();
    C sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < g.size; d++) sum += C(out[d]) * C(dout[d]);
    w.of_row[t] = sum;
  }
  for (int64_t begin = 0; begin < g.time; begin += kQueries) {
    int64_t m = std::min(kQueries, g.time - begin);
    Operand<T> q{qkv, g.stride()}, dout{dy, g.width()};
    over_size<T>(g, begin, m, q, k, C(-INFINITY), [&](int64_t i, C* s, int64_t n) {
      T* p = w.p + i * g.row();
      C normal = lse[begin + i];
      each_vector<C>(n, [=](int64_t j) {
        C below = scale * s[j] - normal;  // rounding may take it above where scores are huge
        p[j] = T(exp_of(below > 0 ? C(0) : below));
      });
      w.clear_after(p + n);
    });
    over_size<T>(g, begin, m, dout, v, C(0), [&](int64_t i, C* dp, int64_t n) {
      const T* p = w.p + i * g.row();
      T* ds = w.ds + i * g.row();
      C shift = w.of_row[begin + i];
      each_vector<C>(n, [=](int64_t j) { ds[j] = T(C(p[j]) * (dp[j] - shift)); });
      w.clear_after(ds + n);
    });
    over_keys<T>(g, begin, m, w.ds, k, [&](int64_t i, const C* sums) {
      store(dqkv + (begin + i) * g.stride(), scale, sums);
    });
    over_queries<T>(g, begin, m, w.ds, q, w.dk);
    over_queries<T>(g, begin, m, w.p, dout, w.dv);
  }
  for (int64_t t = 0; t < g.time; t++) {
    T* to = dqkv + t * g.stride();
    store(to + g.width(), scale, w.dk + t * g.size);
    store(to + 2 * g.width(), C(1), w.dv + t * g.size);
  }
}

template <class T>
Compute<T> head_largest_score(const Geometry& g, const T* qkv) {
  using C = Compute<T>;
  C top = C(-INFINITY);
  for (int64_t begin = 0; begin < g.time; begin += kQueries) {
    over_size<T>(g, begin, std::min(kQueries, g.time - begin), {qkv, g.stride()}, qkv + g.width(),
                 C(-INFINITY), [&](int64_t, const C* s, int64_t n) {
                   for (int64_t j = 0; j < n; j++) top = Maximum::value(top, s[j]);
                 });
  }
  return C(g.scale) * top;
}

// Calls f(b, h, workspace) for every head.
template <class T, class F>
void each_head(const Geometry& g, const F& f) {
  const int64_t size = Workspace<T>(g, nullptr).bytes;
  Tensor memory({omp_get_max_threads(), size / 4});
  parallel_tasks(g.batch * g.heads, [&](int64_t task) {
    f(task / g.heads, task % g.heads,
      Workspace<T>(g, static_cast<char*>(memory.raw()) + omp_get_thread_num() * size));
  });
}

}  // namespace

void attention(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& lse) {
  dispatch(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    Geometry g = geometry_of(heads, qkv);
    each_head<T>(g, [&](int64_t b, int64_t h, const Workspace<T>& w) {
      head_forward<T>(g, qkv.data<T>() + b * g.time * g.stride() + h * g.size,
                      y.data<T>() + b * g.time * g.width() + h * g.size,
                      lse.data<Compute<T>>() + (b * g.heads + h) * g.time, w);
    });
  });
}

void largest_scores(int64_t heads, const Tensor& qkv, Tensor& y) {
  dispatch(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    Geometry g = geometry_of(heads, qkv);
    check_largest_scores(heads, qkv, y);
    std::vector<C> of_head(size_t(g.batch * heads));
    parallel_tasks(g.batch * heads, [&](int64_t task) {
      of_head[size_t(task)] = head_largest_score<T>(
          g, qkv.data<T>() + task / heads * g.time * g.stride() + task % heads * g.size);
    });
    C* top = y.data<C>();
    for (size_t i = 0; i < of_head.size(); i++) {
      C& to = top[i % size_t(heads)];
      to = Maximum::value(to, of_head[i]);
    }
  });
}

void attention_backward(int64_t heads, const Tensor& qkv, const Tensor& y, const Tensor& lse,
                        const Tensor& dy, Into dqkv) {
  check_same(qkv, dqkv.tensor);
  check_same(y, dy);
  dispatch(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    Geometry g = geometry_of(heads, qkv);
    each_head<T>(g, [&](int64_t b, int64_t h, const Workspace<T>& w) {
      int64_t packed = b * g.time * g.stride() + h * g.size,
              plain = b * g.time * g.width() + h * g.size;
      head_backward<T>(g, qkv.data<T>() + packed, y.data<T>() + plain,
                       lse.data<Compute<T>>() + (b * g.heads + h) * g.time, dy.data<T>() + plain,
                       dqkv.tensor.data<T>() + packed, dqkv.accumulate, w);
    });
  });
}

}  // namespace murmur::cpu
