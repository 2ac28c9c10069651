// tensor/cuda/attention_hopper.h - causal attention for bf16 heads of 64 and 128 on Hopper.
#pragma once

#include "tensor/engine.h"

namespace murmur::cuda {

// As attention() and attention_backward() of tensor/engine.h. False: nothing was done, because it
// does not apply here (another type or head size) or the device has no such kernel.
bool hopper_attention(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& lse);
bool hopper_attention_backward(int64_t heads, const Tensor& qkv, const Tensor& y, const Tensor& lse,
                               const Tensor& dy, Into dqkv);

}  // namespace murmur::cuda
