// tensor/cpu/rows.cpp - operations along rows: softmax, norms, cross entropy, rotary embedding.
#include "tensor/checks.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/team.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/ops/functions.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/rope.h"
#include "tensor/ops/softmax.h"

namespace murmur::cpu {
namespace {

int64_t row_grain(const Tensor& x, int64_t tensors) {
  return grain_for(x.rows(), tensors * x.cols() * int64_t(size_of(x.dtype())));
}

template <class C>
const C* data_or_null(const Tensor& x) {
  return x ? x.data<C>() : nullptr;
}

// Calls f(row, head, offset of the head in a packed qkv row) for the 2 H heads of q and k.
template <class F>
void each_qk_head(int64_t rows, int64_t heads, int64_t cols, const F& f) {
  int64_t size = cols / (3 * heads);
  parallel_for(rows, grain_for(rows, cols * 8), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      for (int64_t h = 0; h < 2 * heads; h++) f(r, h, r * cols + h * size);
    }
  });
}

// The v third of packed qkv rows passes through unchanged.
template <class T>
void pass_values(int64_t rows, int64_t cols, const T* x, T* y, bool accumulate) {
  using C = Compute<T>;
  parallel_for(rows, grain_for(rows, cols * 8), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      for (int64_t i = r * cols + cols / 3 * 2; i < (r + 1) * cols; i++) {
        y[i] = accumulate ? T(C(y[i]) + C(x[i])) : x[i];
      }
    }
  });
}

}  // namespace

void softmax(const Tensor& x, Tensor& y) {
  check_same(x, y);
  dispatch(x.dtype(), [&](auto type) {
    using T = decltype(type);
    parallel_for(x.rows(), row_grain(x, 2), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        Softmax::forward(Team{}, x.cols(), x.data<T>() + r * x.row_stride(),
                         y.data<T>() + r * y.row_stride());
      }
    });
  });
}

void softmax_backward(const Tensor& y, const Tensor& dy, Into dx) {
  check_same(y, dy);
  check_same(y, dx.tensor);
  dispatch(y.dtype(), [&](auto type) {
    using T = decltype(type);
    parallel_for(y.rows(), row_grain(y, 3), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        Softmax::backward(Team{}, y.cols(), y.data<T>() + r * y.row_stride(),
                          dy.data<T>() + r * dy.row_stride(),
                          dx.tensor.data<T>() + r * dx.tensor.row_stride(), dx.accumulate);
      }
    });
  });
}

void norm(Norm kind, const Tensor& x, const Tensor& residual, const Tensor& gain,
          const Tensor& bias, Tensor& sum, Tensor& y, Tensor& statistics) {
  check_norm(x, residual, gain, sum, y);
  int64_t n = x.cols();
  dispatch(x.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    parallel_for(x.rows(), row_grain(x, 4), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        const T* in = x.data<T>() + r * x.row_stride();
        if (residual) {
          const T* other = residual.data<T>() + r * residual.row_stride();
          T* total = sum.data<T>() + r * sum.row_stride();
          Team::each(n, [=](int64_t i) { total[i] = T(C(in[i]) + C(other[i])); });
          in = total;
        }
        T* out = y.data<T>() + r * y.row_stride();
        C* stats = statistics.data<C>() + 2 * r;
        if (kind == Norm::layer) {
          LayerNorm::forward(Team{}, n, in, data_or_null<C>(gain), data_or_null<C>(bias), out,
                             stats);
        } else {
          RmsNorm::forward(Team{}, n, in, data_or_null<C>(gain), data_or_null<C>(bias), out, stats);
        }
      }
    });
  });
}

// One pass over x and dy: dx row by row, and per piece of rows the partial sums of dgain and dbias.
void norm_backward(Norm kind, const Tensor& x, const Tensor& gain, const Tensor& statistics,
                   const Tensor& dy, Into dx, Into dgain, Into dbias) {
  check_same(x, dy);
  int64_t rows = x.rows(), n = x.cols();
  int64_t grain = std::max<int64_t>(16, (rows + 63) / 64), pieces = (rows + grain - 1) / grain;
  dispatch(x.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    Tensor partial({2, pieces, n}, statistics.dtype());
    C* gain_parts = partial.data<C>();
    C* bias_parts = gain_parts + pieces * n;
    parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
      C* pg = gain_parts + begin / grain * n;
      C* pb = bias_parts + begin / grain * n;
      std::fill(pg, pg + n, C(0));
      std::fill(pb, pb + n, C(0));
      for (int64_t r = begin; r < end; r++) {
        const T* in = x.data<T>() + r * x.row_stride();
        const T* din = dy.data<T>() + r * dy.row_stride();
        const C* stats = statistics.data<C>() + 2 * r;
        C mean = stats[0], rstd = stats[1];
        Team::each(n, [=](int64_t i) {
          pg[i] += C(din[i]) * (C(in[i]) - mean) * rstd;
          pb[i] += C(din[i]);
        });
        if (!dx.tensor) continue;
        T* out = dx.tensor.data<T>() + r * dx.tensor.row_stride();
        if (kind == Norm::layer) {
          LayerNorm::backward(Team{}, n, in, data_or_null<C>(gain), stats, din, out, dx.accumulate);
        } else {
          RmsNorm::backward(Team{}, n, in, data_or_null<C>(gain), stats, din, out, dx.accumulate);
        }
      }
    });
    auto gather = [&](Into to, const C* parts) {
      if (!to.tensor) return;
      C* out = to.tensor.data<C>();
      if (!to.accumulate) std::fill(out, out + n, C(0));
      for (int64_t p = 0; p < pieces; p++)
        Team::each(n, [=](int64_t i) { out[i] += parts[p * n + i]; });
    };
    gather(dgain, gain_parts);
    gather(dbias, bias_parts);
  });
}

void cross_entropy(Tensor& logits, const Tensor& targets, Tensor& losses, bool to_gradient,
                   int64_t vocabulary) {
  check_cross_entropy(logits, targets, losses, vocabulary);
  const int32_t* target = targets.data<int32_t>();
  for (int64_t r = 0; r < logits.rows(); r++) {
    check(target[r] >= 0 && target[r] < vocabulary, [&] {
      return "target " + std::to_string(target[r]) + " outside a vocabulary of " +
             std::to_string(vocabulary);
    });
  }
  dispatch(logits.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    parallel_for(logits.rows(), row_grain(logits, 1), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        T* row = logits.data<T>() + r * logits.row_stride();
        losses.data<C>()[r] = CrossEntropy::row(Team{}, vocabulary, row, target[r], to_gradient);
        if (to_gradient) std::fill(row + vocabulary, row + logits.cols(), T());
      }
    });
  });
}

void qk_norm(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& statistics) {
  check_heads(heads, qkv);
  int64_t rows = qkv.rows(), cols = qkv.cols(), size = cols / (3 * heads);
  dispatch(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    C* stats = statistics.data<C>();  // (N, 2 H, 2)
    each_qk_head(rows, heads, cols, [&](int64_t r, int64_t h, int64_t at) {
      RmsNorm::forward(Team{}, size, qkv.data<T>() + at, static_cast<const C*>(nullptr),
                       static_cast<const C*>(nullptr), y.data<T>() + at,
                       stats + 2 * (r * 2 * heads + h));
    });
    pass_values(rows, cols, qkv.data<T>(), y.data<T>(), false);
  });
}

void qk_norm_backward(int64_t heads, const Tensor& qkv, const Tensor& statistics, const Tensor& dy,
                      Into dx) {
  int64_t rows = qkv.rows(), cols = qkv.cols(), size = cols / (3 * heads);
  dispatch(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    each_qk_head(rows, heads, cols, [&](int64_t r, int64_t h, int64_t at) {
      RmsNorm::backward(Team{}, size, qkv.data<T>() + at, static_cast<const C*>(nullptr),
                        statistics.data<C>() + 2 * (r * 2 * heads + h), dy.data<T>() + at,
                        dx.tensor.data<T>() + at, dx.accumulate);
    });
    pass_values(rows, cols, dy.data<T>(), dx.tensor.data<T>(), dx.accumulate);
  });
}

void rope(int64_t heads, double direction, const Tensor& qkv, const Tensor& angles, Into y) {
  check_rope(heads, qkv, angles, y.tensor);
  int64_t rows = qkv.rows(), cols = qkv.cols(), size = cols / (3 * heads);
  int64_t steps = qkv.shape()[-2];
  dispatch(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    each_qk_head(rows, heads, cols, [&](int64_t r, int64_t, int64_t at) {
      const C* cosine = angles.data<C>() + r % steps * size;
      Rope::head(Team{}, size / 2, qkv.data<T>() + at, cosine, cosine + size / 2, C(direction),
                 y.tensor.data<T>() + at, y.accumulate);
    });
    pass_values(rows, cols, qkv.data<T>(), y.tensor.data<T>(), y.accumulate);
  });
}

}  // namespace murmur::cpu
