// autograd/rows.cpp - gradients of softmax and of the norms.
#include "autograd/functions.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

Tensor like(const Tensor& x) { return Tensor(x.shape(), x.dtype(), x.device()); }

Tensor row_statistics(const Tensor& x) {
  return Tensor({x.rows(), 2}, compute_type(x.dtype()), x.device());
}

// The shared backward of norm and add_norm: gain and bias gradients, and dx into whatever is given.
void norm_gradients(Norm kind, const Tensor& x, const Tensor& gain, const Tensor& statistics,
                    const Tensor& dy, Into dx, const Sink& dgain, const Sink& dbias) {
  Tensor none;
  auto with_bias = [&](Into to_gain) {
    if (dbias) {
      dbias.give([&](Into to_bias) {
        ops::norm_backward(kind, x, gain, statistics, dy, dx, to_gain, to_bias);
      });
    } else {
      ops::norm_backward(kind, x, gain, statistics, dy, dx, to_gain, {none});
    }
  };
  dgain ? dgain.give(with_bias) : with_bias({none});
}

}  // namespace

Var softmax(const Var& x) {
  Tensor y = like(x.value());
  ops::softmax(x.value(), y);
  return record(y, {x}, [dx = x.sink(), y](const Tensor& dy) {
    dx.give([&](Into into) { ops::softmax_backward(y, dy, into); });
  });
}

Var norm(Norm kind, const Var& x, const Var& gain, const Var& bias) {
  Tensor y = like(x.value()), statistics = row_statistics(x.value()), none;
  ops::norm(kind, x.value(), {}, gain.value(), bias.value(), none, y, statistics);
  return record(y, {x, gain, bias},
                [kind, dx = x.sink(), dgain = gain.sink(), dbias = bias.sink(), x = x.value(),
                 gain = gain.value(), statistics](const Tensor& dy) {
                  Tensor none;
                  auto gradients = [&](Into into) {
                    norm_gradients(kind, x, gain, statistics, dy, into, dgain, dbias);
                  };
                  dx ? dx.give(gradients) : gradients({none});
                });
}

SumAndNorm add_norm(Norm kind, const Var& x, const Var& branch, const Var& gain, const Var& bias) {
  Tensor sum = like(x.value()), y = like(x.value()), statistics = row_statistics(x.value());
  ops::norm(kind, x.value(), branch.value(), gain.value(), bias.value(), sum, y, statistics);
  if (!recording({x, branch, gain, bias})) return {Var(sum), Var(y)};
  auto results = record_many(
      {sum, y}, [kind, dx = x.sink(), dbranch = branch.sink(), dgain = gain.sink(),
                 dbias = bias.sink(), sum, gain = gain.value(), statistics](std::span<Tensor> d) {
        // The gradient of the sum is what came back along the residual stream plus the norm's
        // share.
        Tensor total = std::move(d[0]);
        if (d[1]) {
          bool accumulate = bool(total);
          if (!accumulate || !total.unique()) {
            Tensor own = like(sum);
            if (accumulate) ops::copy(total, own);
            total = own;
          }
          norm_gradients(kind, sum, gain, statistics, d[1], {total, accumulate}, dgain, dbias);
        }
        dx.pass(total);
        dbranch.pass(total);
      });
  return {results[0], results[1]};
}

}  // namespace murmur
