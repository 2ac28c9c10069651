// tests/autograd/gradcheck_test.cpp - every differentiable operation of ops.def against finite
// differences in double.
#include "autograd/gradcheck.h"

#include <doctest/doctest.h>

#include <map>

#include "autograd/checkpoint.h"
#include "autograd/functions.h"

using namespace murmur;

namespace {

using Function = std::function<Var(const std::vector<Var>&)>;

Tensor random(Shape shape, uint64_t stream, double low = -1, double high = 1) {
  Tensor x(shape, DType::f64);
  engine(Device::cpu).random_uniform(11, stream, low, high, x);
  return x;
}

Tensor tokens(std::vector<double> ids, Shape shape) { return Tensor::of(ids, shape, DType::i32); }

struct Case {
  std::string name;
  Function f;
  std::vector<Tensor> inputs;
};

// The cases of FUNCTION rows. A row without a case fails below.
std::vector<Case> function_cases() {
  Tensor ids = tokens({3, 1, 3, 0, 2, 4, 4, 1, 0, 3}, {2, 5}),
         targets = tokens({1, 0, 3, 3, 2, 4, 0, 1, 1, 2}, {10});
  std::vector<Case> cases = {
      {"scale", [](auto& v) { return scale(v[0], -1.7); }, {random({3, 4}, 0)}},
      {"sum", [](auto& v) { return sum(square(v[0])); }, {random({3, 4}, 0)}},
      {"mean", [](auto& v) { return mean(square(v[0])); }, {random({3, 4}, 0)}},
      {"reshape",
       [](auto& v) {
         return reshape(v[0], {2, 6});
       },
       {random({3, 4}, 0)}},
      {"matmul",
       [](auto& v) { return matmul(v[0], v[1]); },
       {random({3, 4}, 0), random({4, 5}, 1)}},
      {"matmul",
       [](auto& v) { return matmul(v[0], v[1]); },
       {random({2, 3, 4}, 0), random({2, 4, 5}, 1)}},
      {"linear",
       [](auto& v) { return linear(v[0], v[1]); },
       {random({2, 3, 4}, 0), random({5, 4}, 1)}},
      {"linear",
       [](auto& v) { return linear(v[0], v[1], v[2]); },
       {random({2, 3, 4}, 0), random({5, 4}, 1), random({5}, 2)}},
      {"mlp",
       [](auto& v) { return mlp(v[0], v[1], v[2], Unary::gelu, v[3], v[4]); },
       {random({2, 3, 4}, 0), random({6, 4}, 1), random({6}, 2), random({5, 6}, 3),
        random({5}, 4)}},
      {"mlp",
       [](auto& v) { return mlp(v[0], v[1], Var(), Unary::silu, v[2], Var()); },
       {random({2, 3, 4}, 0), random({6, 4}, 1), random({5, 6}, 2)}},
      {"softmax", [](auto& v) { return softmax(v[0]); }, {random({3, 7}, 0, -3, 3)}},
      {"layer_norm",
       [](auto& v) { return layer_norm(v[0], v[1], v[2]); },
       {random({2, 3, 6}, 0), random({6}, 1), random({6}, 2)}},
      {"layer_norm",
       [](auto& v) { return layer_norm(v[0], v[1]); },
       {random({40, 5}, 0), random({5}, 1)}},
      {"rms_norm",
       [](auto& v) { return rms_norm(v[0], v[1]); },
       {random({2, 3, 6}, 0), random({6}, 1)}},
      {"qk_norm", [](auto& v) { return qk_norm(v[0], 2); }, {random({2, 3, 24}, 0)}},
      {"rope",
       [](auto& v) { return rope(v[0], rope_angles(4, 4, DType::f64), 2); },
       {random({2, 3, 24}, 0)}},
      {"embedding", [=](auto& v) { return embedding(ids, v[0]); }, {random({5, 3}, 0)}},
      {"embedding",
       [=](auto& v) { return embedding(ids, v[0], v[1]); },
       {random({5, 3}, 0), random({7, 3}, 1)}},
      {"cross_entropy",
       [=](auto& v) { return cross_entropy(v[0], targets); },
       {random({2, 5, 6}, 0, -3, 3)}},
      {"checkpoint",
       [](auto& v) { return checkpoint([](const Var& x) { return gelu(square(x)); }, v[0]); },
       {random({3, 4}, 0)}},
  };
  for (Norm kind : {Norm::layer, Norm::rms}) {
    cases.push_back({"add_norm",
                     [kind](auto& v) {
                       SumAndNorm r =
                           add_norm(kind, v[0], v[1], v[2], kind == Norm::layer ? v[3] : Var());
                       Var again = add(mul(r.sum, r.sum), r.norm);
                       return kind == Norm::layer ? again : add(again, v[3]);
                     },
                     {random({2, 3, 6}, 0), random({2, 3, 6}, 1), random({6}, 2), random({6}, 3)}});
  }
  for (int64_t size : {3, 8, 16}) {  // head sizes below, at and above a vector
    cases.push_back({"attention",
                     [](auto& v) { return attention(v[0], 2); },
                     {random({2, 5, 6 * size}, uint64_t(size), -2, 2)}});
  }
  cases.push_back({"attention",
                   [](auto& v) { return attention(v[0], 1); },
                   {random({1, 70, 6}, 5, -2, 2)}});  // two key blocks
  for (int64_t chunk : {6, 24, 1000}) {               // one row at a time, four rows, all at once
    cases.push_back(
        {"head_cross_entropy",
         [=](auto& v) { return scale(head_cross_entropy(v[0], v[1], targets, chunk), 1.5); },
         {random({2, 5, 4}, 0), random({6, 4}, 1)}});
  }
  return cases;
}

void run(const Case& c) {
  GradcheckResult result = gradcheck(c.name, c.f, c.inputs);
  INFO(result.message);
  CHECK(result.ok);
}

}  // namespace

TEST_CASE("every UNARY row passes the gradient check in its domain") {
#define UNARY(name, Functor, low, high, summary) \
  run({#name, [](auto& v) { return name(v[0]); }, {random({5, 7}, 0, low, high)}});
#define BINARY(name, Functor, low, high, summary)
#define FUNCTION(name, summary)
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
}

TEST_CASE("every BINARY row passes it, with equal shapes, a repeated row and a number") {
#define UNARY(name, Functor, low, high, summary)
#define BINARY(name, Functor, low, high, summary)                         \
  run({#name,                                                             \
       [](auto& v) { return name(v[0], v[1]); },                          \
       {random({5, 7}, 0, low, high), random({5, 7}, 1, low, high)}});    \
  run({#name,                                                             \
       [](auto& v) { return name(v[0], v[1]); },                          \
       {random({2, 5, 7}, 0, low, high), random({5, 7}, 1, low, high)}}); \
  run({#name,                                                             \
       [](auto& v) { return name(v[0], v[1]); },                          \
       {random({5, 7}, 0, low, high), random({7}, 1, low, high)}});       \
  run({#name,                                                             \
       [](auto& v) { return name(v[0], v[1]); },                          \
       {random({5, 7}, 0, low, high), random({}, 1, low, high)}});
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
#undef FUNCTION
}

TEST_CASE("every FUNCTION row has a case, and every case passes") {
  std::map<std::string, int> seen;
  for (const Case& c : function_cases()) {
    CAPTURE(c.name);
    seen[c.name]++;
    run(c);
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
      d.give([&](Into into) { engine(Device::cpu).scale(1.001, dy, into); });
    });
  };
  GradcheckResult result = gradcheck("wrong", wrong, {random({2, 3}, 0)});
  CHECK(!result.ok);
  CHECK(result.message.find("wrong: input 0 [0]: gradient") == 0);
}
