// autograd/linear.h - what every function with a linear layer inside does in backward.
#pragma once

#include "autograd/var.h"

namespace murmur {

// dW (+)= dy^T x and db (+)= the sum of dy's rows, in one pass over dy; dy (N, out), x (N, in).
void weight_gradients(const Tensor& dy, const Tensor& x, const Sink& dw, const Sink& db);

}  // namespace murmur
