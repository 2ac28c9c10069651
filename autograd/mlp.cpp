// autograd/mlp.cpp - two linear layers and the function between them, as one node.
//
//   u = x W1^T + b1        h = f(u)        y = h W2^T + b2
//   dW2 = dy^T h           du = (dy W2) f'(u)           dW1 = du^T x         dx = du W1
//
// One node, because both f(u) and f'(u) are then computed on tiles of a product that are in the
// cache, and because dy W2 never needs a buffer of its own.
#include "autograd/functions.h"
#include "autograd/linear.h"
#include "tensor/ops.h"

namespace murmur {

Var mlp(const Var& x, const Var& w1, const Var& b1, Unary f, const Var& w2, const Var& b2) {
  const Tensor& in = x.value();
  int64_t rows = in.rows(), wide = w1.value().rows();
  Shape shape = x.shape();
  shape[-1] = w2.value().rows();
  Tensor x_rows = in.view({rows, in.cols()});  // (N, C)
  Tensor u({rows, wide}, in.dtype(), in.device()), h(u.shape(), in.dtype(), in.device());
  Tensor y(shape, in.dtype(), in.device());
  ops::matmul(x_rows, w1.value(), {u},
              {.transpose_b = true, .bias = b1.value(), .op = f, .activated = h});
  ops::matmul(h, w2.value(), {y}, {.transpose_b = true, .bias = b2.value()});
  return record(y, {x, w1, b1, w2, b2},
                [=, dx = x.sink(), dw1 = w1.sink(), db1 = b1.sink(), dw2 = w2.sink(),
                 db2 = b2.sink(), w1 = w1.value(), w2 = w2.value()](const Tensor& dy) {
                  Tensor dy_rows = dy.view({rows, dy.cols()});
                  Tensor du({rows, wide}, u.dtype(), u.device());
                  weight_gradients(dy_rows, h, dw2, db2);
                  ops::matmul(dy_rows, w2, {du}, {.op = f, .slope_at = u});
                  weight_gradients(du, x_rows, dw1, db1);
                  dx.give([&](Into into) {
                    Tensor to = into.tensor.view({rows, x_rows.cols()});
                    ops::matmul(du, w1, {to, into.accumulate}, {});
                  });
                });
}

}  // namespace murmur
