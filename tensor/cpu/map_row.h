// tensor/cpu/map_row.h - one row of an elementwise function, for kernels that fuse it.
#pragma once

#include "tensor/ops.h"  // Unary

namespace murmur::cpu {

// y <- f(x), n elements. T: float, bf16, double.
template <class T>
void map_row(Unary op, int64_t n, const T* x, T* y);
// d <- d f'(x)
template <class T>
void slope_row(Unary op, int64_t n, const T* x, T* d);

}  // namespace murmur::cpu
