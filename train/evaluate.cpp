// train/evaluate.cpp - forward passes without a tape, weighted by their targets.
#include "train/evaluate.h"

#include <cmath>
#include <functional>
#include <utility>
#include <vector>

namespace murmur {

Evaluation evaluate(const Gpt& model, const Dataset& data, int64_t batch_size, int64_t at_most) {
  NoGrad quiet;
  int64_t block = model.config().block_size, batches = data.eval_batches(batch_size, block);
  int64_t count = at_most > 0 ? std::min(at_most, batches) : batches;
  Evaluation result;
  // Each loss is read when all batches have been asked for.
  std::vector<std::pair<std::function<double()>, double>> losses;
  for (int64_t i = 0; i < count; i++) {
    Batch batch = data.eval_batch(i * batches / count, batch_size, block);
    Tensor loss = model.loss(batch.tokens, batch.targets).value();
    losses.emplace_back(engine(loss.device()).read_later(loss), double(batch.targets.numel()));
    result.targets += batch.targets.numel();
  }
  double total = 0;
  for (auto& [loss, targets] : losses) total += loss() * targets;
  result.loss = total / double(result.targets);
  if (auto bytes = data.bytes_per_token())
    result.bits_per_byte = result.loss / std::log(2.0) / *bytes;
  return result;
}

}  // namespace murmur
