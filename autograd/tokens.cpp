// autograd/tokens.cpp - where tokens enter and leave: embedding, cross entropy, the fused head.
#include <algorithm>

#include "autograd/functions.h"
#include "tensor/ops.h"

namespace murmur {

Var embedding(const Tensor& tokens, const Var& table, const Var& positions) {
  check(tokens.shape().rank() == 2,
        [&] { return "embedding: tokens " + text(tokens) + " are not (B, T)"; });
  int64_t batch = tokens.shape()[0], time = tokens.shape()[1], width = table.value().cols();
  Tensor y({batch, time, width}, table.value().dtype(), table.value().device());
  ops::gather(table.value(), tokens, positions.value(), y);
  return record(y, {table, positions},
                [=, dtable = table.sink(), dpositions = positions.sink()](const Tensor& dy) {
                  dtable.give([&](Into into) { ops::gather_backward(tokens, dy, into); });
                  dpositions.give([&](Into into) {
                    if (!into.accumulate) ops::fill(into.tensor, 0);  // rows past T get nothing
                    Tensor used = into.tensor.slice(0, time).view({time * width});
                    ops::sum_rows(dy.view({batch, time * width}), {used, true});
                  });
                });
}

Var cross_entropy(const Var& logits, const Tensor& targets, int64_t vocabulary) {
  const Tensor& x = logits.value();
  if (vocabulary == 0) vocabulary = x.cols();
  int64_t rows = x.rows();
  Tensor gradient(x.shape(), x.dtype(), x.device()),
      losses({rows}, compute_type(x.dtype()), x.device());
  ops::copy(x, gradient);
  ops::cross_entropy(gradient, targets, losses, recording({logits}), vocabulary);
  Tensor loss({}, losses.dtype(), x.device());
  ops::sum(1 / double(rows), losses, loss);
  return record(loss, {logits}, [rows, dx = logits.sink(), gradient](const Tensor& dy) {
    dx.give([&](Into into) { ops::scale({1 / double(rows), dy}, gradient, into); });
  });
}

Var head_cross_entropy(const Var& x, const Var& weight, const Tensor& targets, int64_t vocabulary,
                       int64_t chunk_elements) {
  const Tensor hidden = x.value().view({x.value().rows(), x.value().cols()});
  const Tensor& w = weight.value();
  int64_t rows = hidden.rows(), columns = w.rows();
  if (vocabulary == 0) vocabulary = columns;
  if (chunk_elements == 0)
    chunk_elements = hidden.device() == Device::cpu ? int64_t(1) << 24 : int64_t(1) << 32;
  int64_t chunk = std::clamp<int64_t>(chunk_elements / columns, 1, rows),
          chunks = (rows + chunk - 1) / chunk;
  Tensor flat_targets = targets.view({rows});
  Tensor buffer({chunk, columns}, hidden.dtype(), hidden.device());
  Tensor losses({rows}, compute_type(hidden.dtype()), hidden.device());
  bool wanted = recording({x, weight});
  // Fills the first rows of `buffer` with the logits of chunk i, or with their gradient.
  auto run_chunk = [=](int64_t i, bool to_gradient) mutable {
    int64_t begin = i * chunk, end = std::min(rows, begin + chunk);
    Tensor logits = buffer.slice(0, end - begin), part = losses.slice(begin, end);
    ops::matmul(hidden.slice(begin, end), w, {logits}, {.transpose_b = true});
    ops::cross_entropy(logits, flat_targets.slice(begin, end), part, to_gradient, vocabulary);
  };
  for (int64_t i = 0; i < chunks; i++) run_chunk(i, wanted && i == chunks - 1);
  Tensor loss({}, losses.dtype(), hidden.device());
  ops::sum(1 / double(rows), losses, loss);
  return record(loss, {x, weight},
                [=, dx = x.sink(), dw = weight.sink()](const Tensor& dy) mutable {
                  Factor alpha{1 / double(rows), dy};
                  for (int64_t i = chunks - 1; i >= 0; i--) {
                    int64_t begin = i * chunk, end = std::min(rows, begin + chunk);
                    if (i != chunks - 1) run_chunk(i, true);
                    Tensor dlogits = buffer.slice(0, end - begin);
                    dw.give([&](Into into) {
                      ops::matmul(dlogits, hidden.slice(begin, end), into,
                                  {.transpose_a = true, .alpha = alpha});
                    });
                    dx.give(
                        [&](Into into) {
                          Tensor part = into.tensor.view({rows, hidden.cols()}).slice(begin, end);
                          ops::matmul(dlogits, w, {part, into.accumulate}, {.alpha = alpha});
                        },
                        i == 0);
                  }
                });
}

}  // namespace murmur
