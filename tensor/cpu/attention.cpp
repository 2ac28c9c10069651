// tensor/cpu/attention.cpp - causal attention in blocks; the T x T scores never exist
// (online softmax: Milakov & Gimelshein, 2018; blocks and recomputation: Dao et al., 2022).
//
//   S = q k^T / sqrt(D)      P = softmax of S over keys up to the query      y = P v
//   lse = log sum e^S                                    kept for backward: P = e^(S - lse)
//   dv = P^T dy              dP = dy v^T              dS = P (dP - sum(dy y))
//   dq = dS k / sqrt(D)      dk = dS^T q / sqrt(D)
//
// One task is one head of one sequence, so all sums have one order. A task first copies its q, k, v
// from the packed rows into its own scratch, converted, padded to whole vectors, where a product
// wants it transposed.
#include <omp.h>

#include <cmath>
#include <vector>

#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/small_matmul.h"
#include "tensor/dispatch.h"
#include "tensor/ops/functions.h"
#include "tensor/ops/maximum.h"

namespace murmur::cpu {
namespace {

constexpr int64_t kQueries = 32, kKeys = 64;  // of one block

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

struct Geometry {
  int64_t batch, time, heads, size;  // B, T, H, D
  int64_t padded_time, padded_size;
  double scale;                                        // 1 / sqrt(D)
  int64_t stride() const { return 3 * heads * size; }  // of a packed row
};

template <class C>
Geometry geometry_of(int64_t heads, const Tensor& qkv) {
  check(qkv.shape().rank() == 3 && heads > 0 && qkv.cols() % (3 * heads) == 0 && qkv.contiguous(),
        [&] { return text(qkv) + " is no (B, T, 3 H D) of " + std::to_string(heads) + " heads"; });
  Geometry g{qkv.shape()[0], qkv.shape()[1], heads, qkv.cols() / (3 * heads), 0, 0, 0};
  g.padded_time = round_up(g.time, kKeys);
  g.padded_size = round_up(g.size, kLanes<C>);
  g.scale = 1 / std::sqrt(double(g.size));
  return g;
}

// (T, D) of a packed tensor -> (padded T, padded D), zeros in the padding.
template <class C, class T>
void load_rows(const Geometry& g, const T* from, int64_t stride, C factor, C* to) {
  for (int64_t t = 0; t < g.padded_time; t++) {
    C* row = to + t * g.padded_size;
    int64_t n = t < g.time ? g.size : 0;
    for (int64_t d = 0; d < n; d++) row[d] = factor * C(from[t * stride + d]);
    for (int64_t d = n; d < g.padded_size; d++) row[d] = 0;
  }
}

// (padded T, padded D) -> blocks of keys, each (padded D, kKeys): a block is contiguous, so its
// rows do not compete for the same lines of the first-level cache.
template <class C>
void transpose_to_blocks(const Geometry& g, const C* rows, C* to) {
  constexpr int64_t L = kLanes<C>;
  for (int64_t t = 0; t < g.padded_time; t += L) {
    for (int64_t d = 0; d < g.padded_size; d += L) {
      transpose_block(rows + t * g.padded_size + d, g.padded_size,
                      to + t / kKeys * kKeys * g.padded_size + d * kKeys + t % kKeys, kKeys);
    }
  }
}

template <class C, class T>
void store_rows(const Geometry& g, const C* from, C factor, T* to, int64_t stride,
                bool accumulate) {
  for (int64_t t = 0; t < g.time; t++) {
    const C* row = from + t * g.padded_size;
    T* out = to + t * stride;
    if (accumulate) {
      for (int64_t d = 0; d < g.size; d++) out[d] = T(C(out[d]) + factor * row[d]);
    } else {
      for (int64_t d = 0; d < g.size; d++) out[d] = T(factor * row[d]);
    }
  }
}

// Scores of queries [i0, i0 + m) against keys [j0, j0 + n).
template <class C>
void scores(const Geometry& g, const C* q, const C* k_columns, int64_t i0, int64_t m, int64_t j0,
            int64_t n, C* s) {
  std::fill(s, s + m * kKeys, C(0));
  small_matmul<Left::rows>(m, n, g.size, q + i0 * g.padded_size, g.padded_size,
                           k_columns + j0 * g.padded_size, kKeys, s, kKeys);
}

// Keys of block j0 that some query before `end` may see, in whole vectors.
template <class C>
int64_t visible(int64_t end, int64_t j0) {
  return std::min(kKeys, round_up(end - j0, kLanes<C>));
}

// n is a few whole vectors: too short for general loops to reach their speed.
template <class C>
C row_max(int64_t n, const C* row) {
  typename VectorOf<C>::type top, next;
  std::memcpy(&top, row, sizeof top);
  for (int64_t j = kLanes<C>; j < n; j += kLanes<C>) {
    std::memcpy(&next, row + j, sizeof next);
    top = next > top ? next : top;
  }
  C m = top[0];
  for (int64_t lane = 1; lane < kLanes<C>; lane++) m = top[lane] > m ? top[lane] : m;
  return m;
}

// row <- e^(row - shift); returns the sum.
template <class C>
C row_exp(int64_t n, C* row, C shift) {
  typename VectorOf<C>::type sum{}, next;
  for (int64_t j = 0; j < n; j += kLanes<C>) {
#pragma omp simd
    for (int64_t lane = j; lane < j + kLanes<C>; lane++) row[lane] = exp_of(row[lane] - shift);
    std::memcpy(&next, row + j, sizeof next);
    sum += next;
  }
  C total = 0;
  for (int64_t lane = 0; lane < kLanes<C>; lane++) total += sum[lane];
  return total;
}

template <class C, class T>
void head_forward(const Geometry& g, const T* qkv, T* y, C* lse, C* scratch) {
  int64_t rows = g.padded_time * g.padded_size;
  C *q = scratch, *v = q + rows, *k_columns = v + rows;
  load_rows<C>(g, qkv, g.stride(), C(g.scale), q);
  load_rows<C>(g, qkv + g.heads * g.size, g.stride(), C(1), v);  // keys, only to be transposed
  transpose_to_blocks(g, v, k_columns);
  load_rows<C>(g, qkv + 2 * g.heads * g.size, g.stride(), C(1), v);
  alignas(64) C s[kQueries * kKeys], out[kQueries * 256];
  for (int64_t i0 = 0; i0 < g.time; i0 += kQueries) {
    int64_t m = std::min(kQueries, g.time - i0);
    C top[kQueries], total[kQueries];
    std::fill(top, top + m, C(-INFINITY));
    std::fill(total, total + m, C(0));
    std::fill(out, out + m * g.padded_size, C(0));
    for (int64_t j0 = 0; j0 < i0 + m; j0 += kKeys) {
      int64_t n = visible<C>(i0 + m, j0);
      scores(g, q, k_columns, i0, m, j0, n, s);
      for (int64_t i = 0; i < m; i++) {
        C* row = s + i * kKeys;
        for (int64_t j = std::max<int64_t>(0, i0 + i + 1 - j0); j < n; j++) row[j] = C(-INFINITY);
        C before = top[i], now = std::max(before, row_max(n, row));
        C shrink = exp_of(before - now);
        total[i] = total[i] * shrink + row_exp(n, row, now);
        top[i] = now;
        C* o = out + i * g.padded_size;
        if (j0 == 0) continue;
#pragma omp simd
        for (int64_t d = 0; d < g.padded_size; d++) o[d] *= shrink;
      }
      small_matmul<Left::rows>(m, g.padded_size, n, s, kKeys, v + j0 * g.padded_size, g.padded_size,
                               out, g.padded_size);
    }
    for (int64_t i = 0; i < m; i++) {
      C inverse = C(1) / total[i];
      for (int64_t d = 0; d < g.size; d++)
        y[(i0 + i) * g.heads * g.size + d] = T(out[i * g.padded_size + d] * inverse);
      lse[i0 + i] = top[i] + log_of(total[i]);
    }
  }
}

template <class C, class T>
void head_backward(const Geometry& g, const T* qkv, const T* y, const C* lse, const T* dy, T* dqkv,
                   bool accumulate, C* scratch) {
  int64_t rows = g.padded_time * g.padded_size, width = g.heads * g.size;
  C *q = scratch, *k = q + rows, *dout = k + rows, *k_columns = dout + rows,
    *v_columns = k_columns + rows;
  C *dq = v_columns + rows, *dk = dq + rows, *dv = dk + rows, *delta = dv + rows;
  load_rows<C>(g, qkv, g.stride(), C(g.scale), q);
  load_rows<C>(g, qkv + width, g.stride(), C(1), k);
  load_rows<C>(g, dy, width, C(1), dout);
  transpose_to_blocks(g, k, k_columns);
  load_rows<C>(g, qkv + 2 * width, g.stride(), C(1), dq);  // values, only to be transposed
  transpose_to_blocks(g, dq, v_columns);
  std::fill(dq, dq + 3 * rows, C(0));
  for (int64_t t = 0; t < g.time; t++) {
    const T *out = y + t * width, *dout_row = dy + t * width;
    C sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < g.size; d++) sum += C(out[d]) * C(dout_row[d]);
    delta[t] = sum;
  }
  alignas(64) C p[kQueries * kKeys], dp[kQueries * kKeys];
  int64_t D = g.padded_size;
  for (int64_t i0 = 0; i0 < g.time; i0 += kQueries) {
    int64_t m = std::min(kQueries, g.time - i0);
    for (int64_t j0 = 0; j0 < i0 + m; j0 += kKeys) {
      int64_t n = visible<C>(i0 + m, j0);
      scores(g, q, k_columns, i0, m, j0, n, p);
      std::fill(dp, dp + m * kKeys, C(0));
      small_matmul<Left::rows>(m, n, g.size, dout + i0 * D, D, v_columns + j0 * g.padded_size,
                               kKeys, dp, kKeys);
      for (int64_t i = 0; i < m; i++) {
        C *row = p + i * kKeys, *drow = dp + i * kKeys, normal = lse[i0 + i], shift = delta[i0 + i];
        for (int64_t j = std::max<int64_t>(0, i0 + i + 1 - j0); j < n; j++) row[j] = C(-INFINITY);
#pragma omp simd
        for (int64_t j = 0; j < n; j++) {
          row[j] = exp_of(row[j] - normal);
          drow[j] = row[j] * (drow[j] - shift);
        }
      }
      small_matmul<Left::rows>(m, D, n, dp, kKeys, k + j0 * D, D, dq + i0 * D, D);
      small_matmul<Left::columns>(n, D, m, dp, kKeys, q + i0 * D, D, dk + j0 * D, D);
      small_matmul<Left::columns>(n, D, m, p, kKeys, dout + i0 * D, D, dv + j0 * D, D);
    }
  }
  store_rows(g, dq, C(g.scale), dqkv, g.stride(), accumulate);
  store_rows(g, dk, C(1), dqkv + width, g.stride(), accumulate);  // q already carried the scale
  store_rows(g, dv, C(1), dqkv + 2 * width, g.stride(), accumulate);
}

template <class C, class T>
C head_largest_score(const Geometry& g, const T* qkv, C* scratch) {
  int64_t rows = g.padded_time * g.padded_size;
  C *q = scratch, *k = q + rows, *k_columns = k + rows;
  load_rows<C>(g, qkv, g.stride(), C(g.scale), q);
  load_rows<C>(g, qkv + g.heads * g.size, g.stride(), C(1), k);
  transpose_to_blocks(g, k, k_columns);
  alignas(64) C s[kQueries * kKeys];
  C top = C(-INFINITY);
  for (int64_t i0 = 0; i0 < g.time; i0 += kQueries) {
    int64_t m = std::min(kQueries, g.time - i0);
    for (int64_t j0 = 0; j0 < i0 + m; j0 += kKeys) {
      scores(g, q, k_columns, i0, m, j0, visible<C>(i0 + m, j0), s);
      for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < std::min(kKeys, i0 + i + 1 - j0); j++)
          top = Maximum::value(top, s[i * kKeys + j]);
      }
    }
  }
  return top;
}

// Calls f(b, h, scratch) for every head; one scratch per thread.
template <class C, class F>
void each_head(const Geometry& g, int64_t scratch_size, const F& f) {
  check(g.padded_size <= 256, "heads larger than 256 are not supported");
  Tensor scratch({omp_get_max_threads(), round_up(scratch_size, 16)}, dtype_of<C>());
  parallel_tasks(g.batch * g.heads, [&](int64_t task) {
    f(task / g.heads, task % g.heads, scratch.data<C>() + omp_get_thread_num() * scratch.cols());
  });
}

}  // namespace

void attention(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& lse) {
  dispatch(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    Geometry g = geometry_of<C>(heads, qkv);
    each_head<C>(g, 3 * g.padded_time * g.padded_size, [&](int64_t b, int64_t h, C* scratch) {
      head_forward<C, T>(g, qkv.data<T>() + b * g.time * g.stride() + h * g.size,
                         y.data<T>() + (b * g.time * g.heads + h) * g.size,
                         lse.data<C>() + (b * g.heads + h) * g.time, scratch);
    });
  });
}

void largest_scores(int64_t heads, const Tensor& qkv, Tensor& y) {
  dispatch(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    Geometry g = geometry_of<C>(heads, qkv);
    check_largest_scores(heads, qkv, y);
    std::vector<C> of_head(size_t(g.batch * heads));
    each_head<C>(g, 3 * g.padded_time * g.padded_size, [&](int64_t b, int64_t h, C* scratch) {
      of_head[size_t(b * heads + h)] = head_largest_score<C, T>(
          g, qkv.data<T>() + b * g.time * g.stride() + h * g.size, scratch);
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
    using C = Compute<T>;
    Geometry g = geometry_of<C>(heads, qkv);
    int64_t scratch_size = 8 * g.padded_time * g.padded_size + g.padded_time;
    each_head<C>(g, scratch_size, [&](int64_t b, int64_t h, C* scratch) {
      int64_t packed = b * g.time * g.stride() + h * g.size,
              plain = (b * g.time * g.heads + h) * g.size;
      head_backward<C, T>(g, qkv.data<T>() + packed, y.data<T>() + plain,
                          lse.data<C>() + (b * g.heads + h) * g.time, dy.data<T>() + plain,
                          dqkv.tensor.data<T>() + packed, dqkv.accumulate, scratch);
    });
  });
}

}  // namespace murmur::cpu
