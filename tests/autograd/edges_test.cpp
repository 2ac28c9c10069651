// tests/autograd/edges_test.cpp - NaN and infinities in every function of ops.def, on the CPU.
#include "tests/autograd/edges.h"

using namespace murmur;

TEST_CASE("no function of the list swallows NaN or invents numbers from infinities") {
  for (DType dtype : {DType::f32, DType::f64}) {
    CAPTURE(name_of(dtype));
    for (const FunctionCase& c : function_cases(dtype, Device::cpu)) check_edges(c);
  }
}
