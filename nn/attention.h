// nn/attention.h - causal self-attention with packed queries, keys and values.
#pragma once

#include "nn/linear.h"
#include "tensor/ops.h"

namespace murmur {

class Attention {
 public:
  // angles: (T, D) cosines and sines for rotary positions, or empty: then queries and keys are
  // taken as they are; with angles they are RMS-normalised per head and rotated.
  Attention(Parameters& parameters, const std::string& name, int64_t width, int64_t heads,
            bool bias, double deviation, double out_deviation)
      : heads_(heads),
        qkv_(parameters, name + ".c_attn", width, 3 * width, bias, deviation, heads),
        out_(parameters, name + ".c_proj", width, width, bias, out_deviation) {}

  Var operator()(const Var& x, const Tensor& angles) const {
    Var qkv = qkv_(x);  // (B, T, 3C)
    if (angles) qkv = rope(qk_norm(qkv, heads_), angles, heads_);
    if (Tensor largest = qkv_.largest_scores()) ops::largest_scores(heads_, qkv.value(), largest);
    return out_(attention(qkv, heads_));  // (B, T, C)
  }

 private:
  int64_t heads_;
  Linear qkv_, out_;
};

}  // namespace murmur
