// autograd/elementwise.cpp - gradients of maps, zips, sums and reshapes.
#include "autograd/elementwise.h"

#include "autograd/functions.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

Tensor like(const Var& x) { return Tensor(x.shape(), x.value().dtype(), x.value().device()); }

}  // namespace

Var apply(Unary op, const Var& x) {
  Tensor y = like(x);
  ops::map(op, x.value(), y);
  return record(y, {x}, [op, dx = x.sink(), x = x.value()](const Tensor& dy) {
    dx.give([&](Into into) { ops::map_backward(op, x, dy, into); });
  });
}

Var apply(Binary op, const Var& a, const Var& b) {
  Tensor y = like(a);
  ops::zip(op, a.value(), b.value(), y);
  bool sum_of_both = op == binary::add && a.shape() == b.shape();
  return record(y, {a, b},
                [=, da = a.sink(), db = b.sink(), a = a.value(), b = b.value()](const Tensor& dy) {
                  if (sum_of_both) {  // both gradients are dy itself
                    da.pass(dy);
                    db.pass(dy);
                    return;
                  }
                  da.give([&](Into into) { ops::zip_backward(op, true, a, b, dy, into); });
                  if (a.shape() == b.shape()) {
                    db.give([&](Into into) { ops::zip_backward(op, false, a, b, dy, into); });
                  } else if (db) {  // b was repeated: add its copies' gradients up
                    Tensor wide(a.shape(), a.dtype(), a.device());
                    ops::zip_backward(op, false, a, b, dy, {wide});
                    db.give([&](Into into) {
                      int64_t size = into.tensor.numel();
                      Tensor flat = into.tensor.view({size}), narrow = flat;
                      if (flat.dtype() == DType::bf16)
                        narrow = Tensor({size}, DType::f32, a.device());
                      ops::sum_rows(wide.view({a.numel() / size, size}),
                                    {narrow, narrow.shares_storage_with(flat) && into.accumulate});
                      if (narrow.shares_storage_with(flat)) return;
                      Tensor rounded({size}, DType::bf16, a.device());
                      ops::copy(narrow, rounded);
                      ops::scale(1, rounded, {flat, into.accumulate});
                    });
                  }
                });
}

#define UNARY(name, Functor, low, high, summary) \
  Var name(const Var& x) { return apply(unary::name, x); }
#define BINARY(name, Functor, low, high, summary) \
  Var name(const Var& a, const Var& b) { return apply(binary::name, a, b); }
#define FUNCTION(name, summary)
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
#undef FUNCTION

Var scale(const Var& x, double factor) {
  Tensor y = like(x);
  ops::scale(factor, x.value(), {y});
  return record(y, {x}, [factor, dx = x.sink()](const Tensor& dy) {
    dx.give([&](Into into) { ops::scale(factor, dy, into); });
  });
}

Var sum(const Var& x) {
  Tensor y({}, compute_type(x.value().dtype()), x.value().device());
  ops::sum(1, x.value(), y);
  return record(y, {x},
                [dx = x.sink(), shape = x.shape(), dtype = x.value().dtype()](const Tensor& dy) {
                  Tensor spread(shape, dtype, dy.device());
                  ops::fill(spread, 1);
                  ops::scale({1, dy}, spread, {spread});
                  dx.pass(spread);
                });
}

Var mean(const Var& x) { return scale(sum(x), 1.0 / double(x.value().numel())); }

Var reshape(const Var& x, Shape shape) {
  return record(x.value().view(shape), {x}, [dx = x.sink()](const Tensor& dy) { dx.pass(dy); });
}

}  // namespace murmur
