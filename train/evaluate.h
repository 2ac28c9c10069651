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
  std::optional<double> bits_per_byte;  // where the tokens' bytes are known
  int64_t targets = 0;
};

// Asked before every pass, when `done` of `total` batches were read.
using GoOn = std::function<bool(int64_t done, int64_t total)>;

// Reads the validation text once from front to back; with `at_most` batches, that many, evenly
// spread. With `ranks`, each of them reads its share; all get the result, that of one rank alone.
// Nothing, where `go_on` said no, to one of the ranks at least.
std::optional<Evaluation> evaluate(const Gpt& model, const Dataset& data, int64_t batch_size,
                                   int64_t at_most = 0, Communicator* ranks = nullptr,
                                   const GoOn& go_on = {});

}  // namespace murmur
