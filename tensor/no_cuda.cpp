// tensor/no_cuda.cpp - linked instead of tensor/cuda/ where there is no CUDA.
#include "tensor/backend.h"

namespace murmur {

const Backend* cuda_backend() { return nullptr; }

void* cuda_stream() { return nullptr; }

}  // namespace murmur
