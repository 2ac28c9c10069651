// tensor/cuda/attention.cu - causal attention: bf16 heads of 32, 64, 96 and 128 on tensor cores,
// all others row by row.
#include <type_traits>

#include "tensor/cuda/attention_backward.h"
#include "tensor/cuda/attention_forward.h"
#include "tensor/cuda/attention_hopper.h"
#include "tensor/cuda/attention_rows.h"
#include "tensor/cuda/cuda_engine.h"
#include "tensor/cuda/runtime.h"
#include "tensor/dispatch.h"

namespace murmur {
namespace {

using cuda::ceil_div, cuda::launch, cuda::tiles_of;

cuda::Heads heads_of(int64_t heads, const Tensor& qkv, const Tensor& y, const Tensor& lse) {
  check(qkv.shape().rank() == 3 && heads > 0 && qkv.cols() % (3 * heads) == 0 && qkv.contiguous(),
        [&] {
          return "attention: " + text(qkv) + " is no (B, T, 3 H D) of " + std::to_string(heads) +
                 " heads";
        });
  check(y.contiguous() && 3 * y.numel() == qkv.numel() && lse.numel() == qkv.rows() * heads,
        [&] { return "attention: " + text(y) + ", " + text(lse) + " do not fit " + text(qkv); });
  cuda::Heads at{int(qkv.shape()[1]), int(heads), int(qkv.cols() / (3 * heads))};
  check(at.size <= cuda::kLargestHead, "attention: heads larger than 256 are not supported");
  return at;
}

// Can heads of these tensors be read 16 bytes at a time?
bool wide_heads(const cuda::Heads& at, std::initializer_list<const Tensor*> tensors) {
  const Tensor& qkv = **tensors.begin();
  int neighbours = 16 / int(size_of(qkv.dtype()));
  return cuda::wide(neighbours, {qkv.rows() * 3 * at.heads, at.size}, tensors);
}

// Calls f with the head size as a constant where there are kernels with tiles for it.
template <class F>
bool with_tiles(const Tensor& qkv, const cuda::Heads& at, bool wide, const F& f) {
  if (qkv.dtype() != DType::bf16 || !wide) return false;
  if (at.size == 32) return f(std::integral_constant<int, 32>{}), true;
  if (at.size == 64) return f(std::integral_constant<int, 64>{}), true;
  if (at.size == 96) return f(std::integral_constant<int, 96>{}), true;
  if (at.size == 128) return f(std::integral_constant<int, 128>{}), true;
  return false;
}

// A grid of as many blocks as every head of every sequence needs.
template <class Plan, class... P, class... A>
void launch_tiles(void (*kernel)(P...), const Tensor& lse, int rows_per_block, const A&... args) {
  int time = int(lse.shape()[2]), heads = int(lse.rows());
  launch(kernel, heads * tiles_of(time, rows_per_block), Plan::kThreads, Plan::kShared, args...);
}

// A warp per row of every head.
template <class... P, class... A>
void launch_rows(void (*kernel)(P...), const cuda::Heads& at, int64_t rows, const A&... args) {
  launch(kernel, ceil_div(rows, cuda::kRowWarps), 32 * cuda::kRowWarps,
         cuda::OwnRows::bytes(at.size), args..., at, rows);
}

}  // namespace

void CudaEngine::attention(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& lse) const {
  cuda::Doing doing("attention", {&qkv});
  cuda::Heads at = heads_of(heads, qkv, y, lse);
  if (qkv.numel() == 0) return;
  if (cuda::hopper_wanted() && cuda::hopper_attention(heads, qkv, y, lse)) return;
  if (with_tiles(qkv, at, wide_heads(at, {&qkv, &y}), [&](auto size) {
        using Plan = cuda::ForwardPlan<size>;
        launch_tiles<Plan>(cuda::attention_forward<size>, lse, Plan::kQueries, qkv.data<bf16>(),
                           y.data<bf16>(), lse.data<float>(), at);
      })) {
    return;
  }
  dispatch_single(qkv.dtype(), "attention", [&](auto type) {
    using T = decltype(type);
    launch_rows(cuda::attention_rows<T>, at, lse.numel(), qkv.data<T>(), y.data<T>(),
                lse.data<float>());
  });
}

void CudaEngine::attention_backward(int64_t heads, const Tensor& qkv, const Tensor& y,
                                    const Tensor& lse, const Tensor& dy, Into dqkv) const {
  cuda::Doing doing("attention backward", {&qkv, &dy});
  check_same("attention backward", qkv, dqkv.tensor);
  check_same("attention backward", y, dy);
  cuda::Heads at = heads_of(heads, qkv, y, lse);
  if (qkv.numel() == 0) return;
  if (cuda::hopper_wanted() && cuda::hopper_attention_backward(heads, qkv, y, lse, dy, dqkv)) return;
  bool wide = wide_heads(at, {&qkv, &y, &dy, &dqkv.tensor}), accumulate = dqkv.accumulate;
  int64_t rows = lse.numel();
  Tensor scratch({rows, 2}, DType::f32, Device::cuda);
  auto* statistics = reinterpret_cast<cuda::RowStatistics*>(scratch.raw());

  dispatch_single(qkv.dtype(), "attention", [&](auto type) {
    using T = decltype(type);
    Extent e{rows, at.size};
    launch(cuda::row_statistics<T>, ceil_div(4 * rows, 256), 256, 0, cuda::rows_of<T>(y, e),
           cuda::rows_of<T>(dy, e), lse.data<float>(), statistics, at, rows, wide);
  });
  if (with_tiles(qkv, at, wide, [&](auto size) {
        using Keys = cuda::KeysPlan<size>;
        using Queries = cuda::QueriesPlan<size>;
        const bf16 *from = qkv.data<bf16>(), *dout = dy.data<bf16>();
        bf16* to = dqkv.tensor.data<bf16>();
        launch_tiles<Keys>(cuda::attention_backward_keys<size>, lse, Keys::kKeys, from, dout,
                           statistics, to, accumulate, at);
        launch_tiles<Queries>(cuda::attention_backward_queries<size>, lse, Queries::kQueries, from,
                              dout, statistics, to, accumulate, at);
      })) {
    return;
  }
  dispatch_single(qkv.dtype(), "attention", [&](auto type) {
    using T = decltype(type);
    const T *from = qkv.data<T>(), *dout = dy.data<T>();
    T* to = dqkv.tensor.data<T>();
    launch_rows(cuda::attention_rows_dq<T>, at, rows, from, dout, statistics, to, accumulate);
    launch_rows(cuda::attention_rows_dkdv<T>, at, rows, from, dout, statistics, to, accumulate);
  });
}

}  // namespace murmur
