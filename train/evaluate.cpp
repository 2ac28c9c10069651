// train/evaluate.cpp - forward passes without a tape, weighted by their targets.
#include "train/evaluate.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "dist/collectives.h"

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
                                   int64_t at_most, Communicator* ranks, const GoOn& go_on) {
  NoGrad quiet;
  int64_t block = model.config().block_size, batches = data.eval_batches(batch_size, block);
  int64_t count = at_most > 0 ? std::min(at_most, batches) : batches;
  int64_t rank = ranks ? ranks->rank() : 0, size = ranks ? ranks->size() : 1;
  // Each loss is read when all batches have been asked for.
  struct Loss {
    int64_t batch;
    std::function<double()> mean;
    double targets;
  };
  std::vector<Loss> losses;
  for (int64_t first = 0; first < count; first += size) {
    if (go_on && !on_all(ranks, go_on(first, count))) return {};
    // All ranks make as many passes, because they may fetch weights together.
    int64_t i = std::min(first + rank, count - 1);
    Batch batch = data.eval_batch(i * batches / count, batch_size, block);
    Tensor loss = model.loss(batch.tokens, batch.targets).value();
    if (first + rank < count)
      losses.push_back({i, engine(loss.device()).read_later(loss), double(batch.targets.numel())});
  }
  // Batch by batch, so that the sum does not depend on who has read which.
  Tensor sums = Tensor::zeros({2, count}, DType::f64);
  double *of_losses = sums.data<double>(), *of_targets = of_losses + count;
  for (const Loss& loss : losses) {
    of_losses[loss.batch] = loss.mean() * loss.targets;
    of_targets[loss.batch] = loss.targets;
  }
  if (ranks) all_reduce(*ranks, "validation losses", {sums});
  double total = 0, targets = 0;
  for (int64_t i = 0; i < count; i++) {
    total += of_losses[i];
    targets += of_targets[i];
  }
  Evaluation result;
  result.targets = int64_t(targets);
  result.loss = total / targets;
  if (auto bytes = data.bytes_per_token())
    result.bits_per_byte = result.loss / std::log(2.0) / *bytes;
  return result;
}

}  // namespace murmur
