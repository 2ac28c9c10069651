// optim/qk_clip.cpp - a few operations on one number per head; nothing is read back.
#include "optim/qk_clip.h"

#include "optim/numbers.h"

namespace murmur {

void qk_clip(Parameters& parameters, double limit) {
  for (const Parameter& p : parameters.all()) {
    if (!p.largest_scores) continue;
    const Tensor& largest = p.largest_scores;
    const Engine& e = engine(largest.device());
    int64_t heads = p.qkv_heads;
    Tensor root = like(largest);
    e.copy(largest, root);
    at_least(limit, root);
    e.zip(Binary::div, constant(limit, root), root, root);
    e.map(Unary::sqrt, root, root);
    Tensor both({2 * heads}, root.dtype(), root.device());  // of queries, of keys
    for (int64_t half : {0, 1}) {
      Tensor to = both.slice(half * heads, (half + 1) * heads);
      e.copy(root, to);
    }
    Tensor value = parameters.value(p);  // (3 H D, C) or (3 H D)
    Tensor packed = value.view({3 * heads, value.numel() / (3 * heads)}).slice(0, 2 * heads);
    e.scale({1, both}, packed, {packed});
    if (Tensor shadow = parameters.shadow(p)) e.copy(value, shadow);
  }
}

}  // namespace murmur
