// tensor/cuda/attention.cu - causal attention: bf16 heads of 32, 64, 96 and 128 on tensor cores,
// all others row by row.
#include <type_traits>

#include "tensor/checks.h"
#include "tensor/cuda/attention_backward.h"
#include "tensor/cuda/attention_forward.h"
#include "tensor/cuda/attention_hopper.h"
#include "tensor/cuda/attention_rows.h"
#include "tensor/cuda/hopper.h"
#include "tensor/cuda/runtime.h"
#include "tensor/ops/functions.h"

namespace murmur::cuda {
namespace {

Heads heads_of(int64_t heads, const Tensor& qkv, const Tensor& y, const Tensor& lse) {
  check_heads(heads, qkv);
  check(qkv.shape().rank() == 3 && y.contiguous() && 3 * y.numel() == qkv.numel() &&
            lse.numel() == qkv.rows() * heads,
        [&] { return text(y) + ", " + text(lse) + " do not fit " + text(qkv); });
  Heads at{int(qkv.shape()[1]), int(heads), int(qkv.cols() / (3 * heads))};
  check(at.size <= kLargestHead, "heads larger than 256 are not supported");
  return at;
}

// Are there kernels with tiles for these heads, and can they be read 16 bytes at a time?
bool have_tiles(const Heads& at, std::initializer_list<const Tensor*> tensors) {
  bool fits = at.size % 32 == 0 && at.size <= 128;
  for (const Tensor* x : tensors) {
    fits = fits && x->dtype() == DType::bf16 && reinterpret_cast<uintptr_t>(x->raw()) % 16 == 0;
  }
  return fits;
}
bool hopper_fits(const Heads& at, std::initializer_list<const Tensor*> tensors) {
  return hopper_wanted() && at.size % 64 == 0 && have_tiles(at, tensors) &&
         hopper_attention_trusted(at.size);
}

// f(head size as a constant)
template <class F>
void with_size(int size, const F& f) {
  using std::integral_constant;
  if (size == 32) f(integral_constant<int, 32>{});
  if (size == 64) f(integral_constant<int, 64>{});
  if (size == 96) f(integral_constant<int, 96>{});
  if (size == 128) f(integral_constant<int, 128>{});
}

// A block for every `rows_per_block` rows of every head of every sequence.
template <class Plan, class... P, class... A>
void launch_tiles(void (*kernel)(P...), const Tensor& qkv, const Heads& at, int rows_per_block,
                  const A&... args) {
  int heads = int(qkv.shape()[0]) * at.heads;
  launch(kernel, heads * tiles_of(at.time, rows_per_block), Plan::kThreads, Plan::kShared, args...,
         at);
}
// A warp for each of them.
template <class... P, class... A>
void launch_rows(void (*kernel)(P...), const Tensor& qkv, const Heads& at, const A&... args) {
  int64_t rows = qkv.rows() * at.heads;
  launch(kernel, ceil_div(rows, kRowWarps), 32 * kRowWarps, 0, args..., at, rows);
}

void general_forward(const Heads& at, const Tensor& qkv, Tensor& y, Tensor& lse) {
  if (have_tiles(at, {&qkv, &y})) {
    return with_size(at.size, [&](auto size) {
      using Plan = ForwardPlan<size>;
      launch_tiles<Plan>(attention_forward<size>, qkv, at, Plan::kQueries, qkv.data<bf16>(),
                         y.data<bf16>(), lse.data<float>());
    });
  }
  dispatch_single(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    launch_rows(attention_rows<T>, qkv, at, qkv.data<T>(), y.data<T>(), lse.data<float>());
  });
}

void general_backward(const Heads& at, const Tensor& qkv, const Tensor& dy,
                      const RowStatistics* statistics, Into dqkv) {
  if (have_tiles(at, {&qkv, &dy, &dqkv.tensor})) {
    return with_size(at.size, [&](auto size) {
      auto run = [&](auto keys) {
        using Plan = BackwardPlan<size, keys>;
        launch_tiles<Plan>(attention_backward<size, keys>, qkv, at, Plan::kOwn, qkv.data<bf16>(),
                           dy.data<bf16>(), statistics, dqkv.tensor.data<bf16>(), dqkv.accumulate);
      };
      run(std::true_type{});
      run(std::false_type{});
    });
  }
  dispatch_single(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    for (auto* kernel : {attention_rows_backward<T, true>, attention_rows_backward<T, false>}) {
      launch_rows(kernel, qkv, at, qkv.data<T>(), dy.data<T>(), statistics, dqkv.tensor.data<T>(),
                  dqkv.accumulate);
    }
  });
}

const RowStatistics* data(const Tensor& statistics) {
  return static_cast<const RowStatistics*>(statistics.raw());
}

}  // namespace

Tensor row_statistics_of(const Heads& at, const Tensor& y, const Tensor& dy, const Tensor& lse) {
  int64_t rows = y.shape()[0] * at.heads * at.padded();
  Tensor statistics({rows, 2}, DType::f32, Device::cuda);
  dispatch_single(y.dtype(), [&](auto type) {
    using T = decltype(type);
    constexpr int N = kNeighbours<T>;
    Rows<T> out{y.data<T>(), at.size}, dout{dy.data<T>(), at.size};
    launch(row_statistics<T>, ceil_div(4 * rows, 256), 256, 0, out, dout, lse.data<float>(),
           static_cast<RowStatistics*>(statistics.raw()), at, rows, out.wide(N) && dout.wide(N));
  });
  return statistics;
}

// A ragged length, several tiles and heads.
bool hopper_attention_trusted(int size) {
  static int verdicts[2] = {};
  return first_use("attention", verdicts[size == 128], [&] {
    Heads at{300, 2, size};
    Tensor qkv = sample({1, at.time, 3 * at.width()}, 1), dy = sample({1, at.time, at.width()}, 2);
    Tensor lse({1, at.heads, at.time}, DType::f32, Device::cuda), y[2], dqkv[2];
    for (bool hopper : {false, true}) {
      y[hopper] = Tensor(dy.shape(), DType::bf16, Device::cuda);
      dqkv[hopper] = Tensor(qkv.shape(), DType::bf16, Device::cuda);
      (hopper ? hopper_attention : general_forward)(at, qkv, y[hopper], lse);
      Tensor statistics = row_statistics_of(at, y[hopper], dy, lse);
      (hopper ? hopper_attention_backward : general_backward)(at, qkv, dy, data(statistics),
                                                              {dqkv[hopper]});
    }
    return difference(y[1], y[0]) + difference(dqkv[1], dqkv[0]);
  });
}

void attention(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& lse) {
  Heads at = heads_of(heads, qkv, y, lse);
  if (qkv.numel() == 0) return;
  (hopper_fits(at, {&qkv, &y}) ? hopper_attention : general_forward)(at, qkv, y, lse);
}

void largest_scores(int64_t heads, const Tensor& qkv, Tensor& y) {
  check_largest_scores(heads, qkv, y);
  if (qkv.numel() == 0) return;
  Heads at{int(qkv.shape()[-2]), int(heads), int(qkv.cols() / (3 * heads))};
  check(at.size <= kLargestHead, "heads larger than 256 are not supported");
  Tensor top({qkv.rows() * heads}, DType::f32, Device::cuda);
  dispatch_single(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    launch_rows(largest_score_rows<T>, qkv, at, qkv.data<T>(), top.data<float>());
  });
  launch(largest_of_head, unsigned(heads), 256, 0, top.data<float>(), qkv.rows() / at.time, at,
         y.data<float>());
}

void attention_backward(int64_t heads, const Tensor& qkv, const Tensor& y, const Tensor& lse,
                        const Tensor& dy, Into dqkv) {
  check_same(qkv, dqkv.tensor);
  check_same(y, dy);
  Heads at = heads_of(heads, qkv, y, lse);
  if (qkv.numel() == 0) return;
  Tensor statistics = row_statistics_of(at, y, dy, lse);
  bool hopper = hopper_fits(at, {&qkv, &dy, &dqkv.tensor});
  (hopper ? hopper_attention_backward : general_backward)(at, qkv, dy, data(statistics), dqkv);
}

}  // namespace murmur::cuda
