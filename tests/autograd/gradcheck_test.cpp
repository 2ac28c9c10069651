// tests/autograd/gradcheck_test.cpp - every differentiable operation of ops.def against finite
// differences in double.
#include "autograd/gradcheck.h"

#include <doctest/doctest.h>

#include <map>

#include "tensor/ops.h"
#include "tests/autograd/function_cases.h"

using namespace murmur;

TEST_CASE("every row of the list passes the gradient check, and every FUNCTION row has a case") {
  std::map<std::string, int> seen;
  for (const FunctionCase& c : function_cases(DType::f64, Device::cpu)) {
    seen[c.name]++;
    GradcheckResult result = gradcheck(c.name, c.f, c.inputs);
    INFO(result.message);
    CHECK(result.ok);
  }
#define UNARY(name, Functor, low, high, summary)
#define BINARY(name, Functor, low, high, summary)
#define FUNCTION(name, summary) CHECK_MESSAGE(seen[#name] > 0, "no gradient check for " #name);
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
#undef FUNCTION
}

TEST_CASE("the gradient check notices a wrong gradient and says where") {
  auto wrong = [](const std::vector<Var>& v) {
    Tensor y = v[0].value();
    return record(y, {v[0]}, [d = v[0].sink()](const Tensor& dy) {
      d.give([&](Into into) { ops::scale(1.001, dy, into); });
    });
  };
  Tensor x = Tensor::of({0.1, -0.2, 0.3, 0.4, -0.5, 0.6}, {2, 3}, DType::f64);
  GradcheckResult result = gradcheck("wrong", wrong, {x});
  CHECK(!result.ok);
  CHECK(result.message.find("wrong: input 0 [0]: gradient") == 0);
}
