// tensor/ops/functions.h - the functions behind the operations of tensor/ops.h, one for each
// device, with the operation's own parameters.
#pragma once

#include "tensor/ops.h"

namespace murmur {

#define OP(name)                      \
  namespace cpu {                     \
  decltype(ops::name)::Function name; \
  }                                   \
  namespace cuda {                    \
  decltype(ops::name)::Function name; \
  }
#include "declared_ops.def"

// What ops::copy does on one device.
namespace cpu {
void convert(const Tensor& from, Tensor& to);
}
namespace cuda {
void convert(const Tensor& from, Tensor& to);
}

}  // namespace murmur
