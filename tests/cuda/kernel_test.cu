// tests/cuda/kernel_test.cu - the kernels of tests/tensor/kernel_test.cpp, compiled for a GPU.
#include "tests/tensor/kernel_test.cpp"
