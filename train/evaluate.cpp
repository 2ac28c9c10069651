// train/evaluate.cpp - forward passes without a tape, weighted by their targets.
#include "train/evaluate.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "dist/collectives.h"
#include "tensor/backend.h"

namespace murmur {

namespace {

bool on_all(Communicator* ranks, bool yes) {
  if (!ranks || ranks->size() == 1) return yes;
  Tensor no = Tensor::of({double(!yes)}, {1}, DType::f64);
  all_reduce(*ranks, "whether to go on", {no});
  return item(no) == 0;
}

}  // namespace

std::optional<Evaluation> evaluate(const Gpt& model, const Dataset& data, int64_t batch_size,
                                   const EvaluationOptions& o) {
  NoGrad quiet;
  int64_t block = model.config().block_size, batches = data.eval_batches(batch_size, block);
  int64_t count = o.at_most > 0 ? std::min(o.at_most, batches) : batches;
  int64_t rank = o.ranks ? o.ranks->rank() : 0, size = o.ranks ? o.ranks->size() : 1;
  // Each loss is read when all batches have been asked for.
  struct Loss {
    int64_t batch;
    std::function<double()> mean;
    double targets;
  };
  std::vector<Loss> losses;
  for (int64_t first = 0; first < count; first += size) {
    if (o.go_on && !on_all(o.ranks, o.go_on(first, count))) return {};
    // All ranks make as many passes, because they may fetch weights together.
    int64_t i = std::min(first + rank, count - 1);
    Batch batch = data.eval_batch(i * batches / count, batch_size, block);
    Tensor loss = model.loss(batch.tokens, batch.targets).value();
    if (first + rank < count)
      losses.push_back({i, backend(loss.device()).read_later(loss), double(batch.targets.numel())});
  }
  // Batch by batch, so that the sum does not depend on who has read which.
  Tensor sums = Tensor::zeros({2, count}, DType::f64);
  double *of_losses = sums.data<double>(), *of_targets = of_losses + count;
  for (const Loss& loss : losses) {
    of_losses[loss.batch] = loss.mean() * loss.targets;
    of_targets[loss.batch] = loss.targets;
  }
  if (o.ranks) all_reduce(*o.ranks, "validation losses", {sums});
  Evaluation result;
  auto mean_of = [&](int64_t some) {
    double total = 0, targets = 0;
    for (int64_t i = 0; i < some; i++) {
      total += of_losses[i * count / some];
      targets += of_targets[i * count / some];
    }
    result.targets = int64_t(targets);
    return total / targets;
  };
  result.of_sample = mean_of(o.sample > 0 ? std::min(o.sample, count) : count);
  result.loss = mean_of(count);
  if (auto bytes = data.bytes_per_token())
    result.bits_per_byte = result.loss / std::log(2.0) / *bytes;
  return result;
}

}  // namespace murmur
