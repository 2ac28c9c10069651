// tests/autograd/function_cases.h - calls of every differentiable function of ops.def, on any
// device and in any type: for gradient checks, and for those that follow a NaN through them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "autograd/checkpoint.h"
#include "autograd/elementwise.h"
#include "autograd/functions.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {

struct FunctionCase {
  std::string name;
  std::function<Var(const std::vector<Var>&)> f;
  std::vector<Tensor> inputs;
};

inline std::vector<FunctionCase> function_cases(DType dtype, Device device) {
  auto random = [=](Shape shape, uint64_t stream, double low = -1, double high = 1) {
    Tensor wide(shape, DType::f64), x(shape, dtype);
    ops::random_uniform(11, stream, low, high, wide);
    ops::copy(wide, x);
    return to(device, x);
  };
  auto tokens = [=](std::vector<double> ids, Shape shape) {
    return to(device, Tensor::of(ids, shape, DType::i32));
  };
  Tensor ids = tokens({3, 1, 3, 0, 2, 4, 4, 1, 0, 3}, {2, 5}),
         targets = tokens({1, 0, 3, 3, 2, 4, 0, 1, 1, 2}, {10});
  std::vector<FunctionCase> cases = {
#define FUNCTION(name, summary)
#define UNARY(name, Functor, low, high, summary) \
  {#name, [](auto& v) { return name(v[0]); }, {random({5, 7}, 0, low, high)}},
#define BINARY(name, Functor, low, high, summary)                        \
  {#name,                                                                \
   [](auto& v) { return name(v[0], v[1]); },                             \
   {random({5, 7}, 0, low, high), random({5, 7}, 1, low, high)}},        \
      {#name,                                                            \
       [](auto& v) { return name(v[0], v[1]); },                         \
       {random({2, 5, 7}, 0, low, high), random({5, 7}, 1, low, high)}}, \
      {#name,                                                            \
       [](auto& v) { return name(v[0], v[1]); },                         \
       {random({5, 7}, 0, low, high), random({7}, 1, low, high)}},       \
      {#name,                                                            \
       [](auto& v) { return name(v[0], v[1]); },                         \
       {random({5, 7}, 0, low, high), random({}, 1, low, high)}},
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
#undef FUNCTION
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
       [](auto& v) { return mlp(v[0], v[1], v[2], unary::gelu, v[3], v[4]); },
       {random({2, 3, 4}, 0), random({6, 4}, 1), random({6}, 2), random({5, 6}, 3),
        random({5}, 4)}},
      {"mlp",
       [](auto& v) {
         return mlp(v[0], v[1], Var(), {unary::leaky_relu.function, 0.3}, v[2], Var());
       },
       {random({2, 3, 4}, 0), random({6, 4}, 1), random({5, 6}, 2)}},
      {"mlp",
       [](auto& v) { return mlp(v[0], v[1], Var(), unary::silu, v[2], Var()); },
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
       [angles = to(device, rope_angles(4, 4, dtype))](auto& v) { return rope(v[0], angles, 2); },
       {random({2, 3, 24}, 0)}},
      {"embedding", [=](auto& v) { return embedding(ids, v[0]); }, {random({5, 3}, 0)}},
      {"embedding",
       [=](auto& v) { return embedding(ids, v[0], v[1]); },
       {random({5, 3}, 0), random({7, 3}, 1)}},
      {"cross_entropy",
       [=](auto& v) { return cross_entropy(v[0], targets); },
       {random({2, 5, 6}, 0, -3, 3)}},
      {"cross_entropy",  // rows of whole vectors, the last ones padding
       [=](auto& v) { return cross_entropy(v[0], targets, 6); },
       {random({2, 5, 8}, 0, -3, 3)}},
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
  std::vector<int64_t> sizes = {3, 8, 16};        // heads below, at and above a vector
  if (dtype == DType::bf16) sizes.push_back(64);  // tiles of tensor cores
  for (int64_t size : sizes) {
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
         [=](auto& v) { return scale(head_cross_entropy(v[0], v[1], targets, 5, chunk), 1.5); },
         {random({2, 5, 4}, 0), random({6, 4}, 1)}});
  }
  return cases;
}

}  // namespace murmur
