// train/evaluate.h - the loss on text the model was not trained on.
#pragma once

#include <functional>
#include <optional>

#include "dist/communicator.h"
#include "nn/gpt.h"
#include "train/data.h"

namespace murmur {

struct Evaluation {
  double loss = 0;                      // nats per token, mean over all targets read
  double of_sample = 0;                 // the same, over EvaluationOptions::sample
  std::optional<double> bits_per_byte;  // where the tokens' bytes are known
  int64_t targets = 0;
};

struct EvaluationOptions {
  int64_t at_most = 0;            // batches, evenly spread; 0: the whole text
  int64_t sample = 0;             // of which the loss is told besides, evenly spread; 0: all
  Communicator* ranks = nullptr;  // each of them reads its share; all get the result
  // Asked before every pass, when `done` of `total` batches were read.
  std::function<bool(int64_t done, int64_t total)> go_on = {};
};

// Reads the validation text once from front to back. The result is that of one rank alone. Nothing,
// where `go_on` said no, to one of the ranks at least.
std::optional<Evaluation> evaluate(const Gpt& model, const Dataset& data, int64_t batch_size,
                                   const EvaluationOptions& options = {});

}  // namespace murmur
