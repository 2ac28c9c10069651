// optim/qk_clip.cpp - a few operations on one number per head; nothing is read back.
#include "optim/qk_clip.h"

#include "optim/numbers.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {

void qk_clip(Parameters& parameters, double limit) {
  for (const Parameter& p : parameters.all()) {
    if (!p.largest_scores) continue;
    const Tensor& largest = p.largest_scores;
    int64_t heads = p.qkv_heads;
    Tensor root = like(largest);
    ops::copy(largest, root);
    at_least(limit, root);
    ops::zip(binary::div, constant(limit, root), root, root);
    ops::map(unary::sqrt, root, root);
    int64_t head_rows = p.shape[0] / (3 * heads);  // of one of its queries, keys or values
    Tensor by_row = Tensor({p.shape[0]}, root.dtype(), root.device());
    ops::fill(by_row, 1);
    for (int64_t half : {0, 1}) {  // queries, keys
      Tensor rows = by_row.slice(half * heads * head_rows, (half + 1) * heads * head_rows)
                        .view({heads, head_rows});
      ops::scale({1, root}, rows, {rows});
    }
    Tensor value = parameters.value(p);  // (3 H D, C) or (3 H D), or the rows that are here
    if (value.numel() == 0) continue;
    int64_t rows = value.shape()[0], begin = value.shape().rank() == 1 ? 0 : p.first_row;
    Tensor by_rows = value.view({rows, value.numel() / rows});
    ops::scale({1, by_row.slice(begin, begin + rows)}, by_rows, {by_rows});
    if (Tensor shadow = parameters.shadow(p)) ops::copy(value, shadow);
  }
}

}  // namespace murmur
