// tensor/cuda/attention_hopper.h - causal attention for bf16 heads of 64 and 128 on Hopper.
#pragma once

#include "tensor/cuda/attention_backward.h"  // Heads, RowStatistics
#include "tensor/ops.h"

namespace murmur::cuda {

// As attention() and attention_backward() of tensor/engine.h, for tensors that lie at multiples of
// 16 bytes.
void hopper_attention(const Heads& at, const Tensor& qkv, Tensor& y, Tensor& lse);
void hopper_attention_backward(const Heads& at, const Tensor& qkv, const Tensor& dy,
                               const RowStatistics* statistics, Into dqkv);

// attention.cu: whether this device has these kernels and they agree with the general ones there.
bool hopper_attention_trusted(int size);
// (B, H, padded T) RowStatistics.
Tensor row_statistics_of(const Heads& at, const Tensor& y, const Tensor& dy, const Tensor& lse);

}  // namespace murmur::cuda
