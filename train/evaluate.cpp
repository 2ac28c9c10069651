// train/evaluate.cpp - forward passes without a tape, weighted by their targets.
#include "train/evaluate.h"

#include <cmath>

namespace murmur {

Evaluation evaluate(const Gpt& model, const Dataset& data, int64_t batch_size, int64_t at_most) {
  NoGrad quiet;
  int64_t block = model.config().block_size, batches = data.eval_batches(batch_size, block);
  int64_t count = at_most > 0 ? std::min(at_most, batches) : batches;
  Evaluation result;
  double total = 0;
  for (int64_t i = 0; i < count; i++) {
    Batch batch = data.eval_batch(i * batches / count, batch_size, block);
    double targets = double(batch.targets.numel());
    total += item(model.loss(batch.tokens, batch.targets).value()) * targets;
    result.targets += batch.targets.numel();
  }
  result.loss = total / double(result.targets);
  if (auto bytes = data.bytes_per_token())
    result.bits_per_byte = result.loss / std::log(2.0) / *bytes;
  return result;
}

}  // namespace murmur
