// tests/cuda/edges_test.cpp - NaN and infinities in every function of ops.def and in what else the
// engine does.
#include "tests/autograd/edges.h"

#include "tests/tensor/edges.h"

namespace murmur {

TEST_CASE("cuda: the engine neither swallows NaN nor loses what is large") {
  check_engine_edges(Device::cuda);
}

TEST_CASE("cuda: no function of the list swallows NaN or invents numbers from infinities") {
  for (const FunctionCase& c : function_cases(DType::f32, Device::cuda)) check_edges(c);
  // In bf16 what belongs to a layer (weights, gains) stays fp32: those that have none.
  for (const FunctionCase& c : function_cases(DType::bf16, Device::cuda)) {
    if (c.inputs.size() == 1 && c.name != "embedding") check_edges(c);
  }
}

}  // namespace murmur
