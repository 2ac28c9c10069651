// tests/cuda/main.cpp - runs the tests where there is a CUDA device, and says so where there is
// none.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "tensor/backend.h"
#include "tensor/ops.h"

int main(int argc, char** argv) {
  if (!murmur::cuda_backend()) {
    std::printf("skipped: no CUDA device here, so no test of the CUDA engine ran\n");
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
