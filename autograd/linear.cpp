// autograd/linear.cpp - gradients of matrix products.
//
//   y = x W^T + b      dx = dy W      dW = dy^T x      db = sum of dy's rows
#include "autograd/linear.h"

#include "autograd/functions.h"
#include "tensor/ops.h"

namespace murmur {

Var matmul(const Var& a, const Var& b) {
  check(a.shape().rank() == b.shape().rank() && (a.shape().rank() == 2 || a.shape().rank() == 3),
        [&] {
          return "matmul: " + text(a.value()) + " x " + text(b.value()) +
                 ": two matrices or two banks of matrices are wanted";
        });
  Shape shape = a.shape();
  shape[-1] = b.shape()[-1];
  Tensor y(shape, a.value().dtype(), a.value().device());
  ops::matmul(a.value(), b.value(), {y}, {});
  return record(y, {a, b},
                [da = a.sink(), db = b.sink(), a = a.value(), b = b.value()](const Tensor& dy) {
                  da.give([&](Into into) { ops::matmul(dy, b, into, {.transpose_b = true}); });
                  db.give([&](Into into) { ops::matmul(a, dy, into, {.transpose_a = true}); });
                });
}

void weight_gradients(const Tensor& dy, const Tensor& x, const Sink& dw, const Sink& db) {
  if (!dw) return db.give([&](Into into) { ops::sum_rows(dy, into); });
  dw.give([&](Into weight) {
    MatmulForm form{.transpose_a = true};
    if (!db) return ops::matmul(dy, x, weight, form);
    db.give([&](Into bias) {
      form.sums = bias.tensor;
      form.add_to_sums = bias.accumulate;
      ops::matmul(dy, x, weight, form);
    });
  });
}

Var linear(const Var& x, const Var& weight, const Var& bias) {
  check(weight.shape().rank() == 2 && x.value().cols() == weight.value().cols(), [&] {
    return "linear: x " + text(x.value()) + ", weight " + text(weight.value()) +
           ": the weight is (out, in)";
  });
  Shape shape = x.shape();
  shape[-1] = weight.shape()[0];
  Tensor y(shape, x.value().dtype(), x.value().device());
  ops::matmul(x.value(), weight.value(), {y}, {.transpose_b = true, .bias = bias.value()});
  return record(
      y, {x, weight, bias},
      [dx = x.sink(), dw = weight.sink(), db = bias.sink(), x = x.value(),
       w = weight.value()](const Tensor& dy) {
        Tensor x_rows = x.view({x.rows(), x.cols()}), dy_rows = dy.view({dy.rows(), dy.cols()});
        dx.give([&](Into into) {
          Tensor rows = into.tensor.view({x.rows(), x.cols()});
          ops::matmul(dy_rows, w, {rows, into.accumulate}, {});
        });
        weight_gradients(dy_rows, x_rows, dw, db);
      });
}

}  // namespace murmur
