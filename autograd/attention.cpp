// autograd/attention.cpp - gradients of causal attention and of what is done to its queries and
// keys.
#include <cmath>

#include "autograd/functions.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

Tensor like(const Tensor& x) { return Tensor(x.shape(), x.dtype(), x.device()); }

}  // namespace

Var qk_norm(const Var& qkv, int64_t heads) {
  const Tensor& x = qkv.value();
  Tensor y = like(x), statistics({x.rows(), 2 * heads, 2}, compute_type(x.dtype()), x.device());
  ops::qk_norm(heads, x, y, statistics);
  return record(y, {qkv}, [heads, dx = qkv.sink(), x, statistics](const Tensor& dy) {
    dx.give([&](Into into) { ops::qk_norm_backward(heads, x, statistics, dy, into); });
  });
}

Tensor rope_angles(int64_t time, int64_t head_size, DType dtype, double base) {
  std::vector<double> values(size_t(time * head_size));
  int64_t half = head_size / 2;
  for (int64_t t = 0; t < time; t++) {
    for (int64_t j = 0; j < half; j++) {
      double angle = double(t) * std::pow(base, -2.0 * double(j) / double(head_size));
      values[size_t(t * head_size + j)] = std::cos(angle);
      values[size_t(t * head_size + half + j)] = std::sin(angle);
    }
  }
  return Tensor::of(values, {time, head_size}, compute_type(dtype));
}

Var rope(const Var& qkv, const Tensor& angles, int64_t heads) {
  Tensor y = like(qkv.value());
  ops::rope(heads, 1, qkv.value(), angles, {y});
  return record(y, {qkv}, [heads, dx = qkv.sink(), angles](const Tensor& dy) {
    dx.give([&](Into into) { ops::rope(heads, -1, dy, angles, into); });
  });
}

Var attention(const Var& qkv, int64_t heads) {
  const Tensor& x = qkv.value();
  check(x.shape().rank() == 3, [&] { return "attention: " + text(x) + " is not (B, T, 3 C)"; });
  int64_t batch = x.shape()[0], time = x.shape()[1];
  Tensor y({batch, time, x.cols() / 3}, x.dtype(), x.device());
  Tensor lse({batch, heads, time}, compute_type(x.dtype()), x.device());
  ops::attention(heads, x, y, lse);
  return record(y, {qkv}, [heads, dx = qkv.sink(), x, y, lse](const Tensor& dy) {
    dx.give([&](Into into) { ops::attention_backward(heads, x, y, lse, dy, into); });
  });
}

}  // namespace murmur
