// tests/cuda_on_cpu/cuda_runtime.h - found in the place of CUDA's own, so that g++ compiles and
// runs kernels and the host code around them. README.md says what is emulated and what is not.
#pragma once

#include "cuda_on_cpu.h"
#include "host_side.h"
#include "kernel_side.h"
