// tensor/no_cuda.cpp - linked instead of tensor/cuda/ where there is no CUDA.
#include "tensor/engine.h"

namespace murmur {

const Engine* cuda_engine() { return nullptr; }

void* cuda_stream() { return nullptr; }

}  // namespace murmur
