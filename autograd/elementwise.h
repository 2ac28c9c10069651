// autograd/elementwise.h - the differentiable functions that follow from a row of
// tensor/ops/ops.def: gelu(x), add(a, b). b may have the shape of a's last dimensions.
#pragma once

#include "autograd/functions.h"

namespace murmur {

#define UNARY(name, Functor, low, high, summary) Var name(const Var& x);
#define BINARY(name, Functor, low, high, summary) Var name(const Var& a, const Var& b);
#define FUNCTION(name, summary)
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
#undef FUNCTION

}  // namespace murmur
