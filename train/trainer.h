// train/trainer.h - the training loop, and what a run folder remembers of it.
//
//   RUN/config.toml  log.jsonl  loss.png  tokenizer.json  checkpoint/
#pragma once

#include <optional>

#include "train/config.h"

namespace murmur {

// Trains and writes the run folder. With `resume` it goes on from the newest checkpoint, bit for
// bit as if it had never stopped; without, a folder that holds a checkpoint is refused. With `from`
// it goes on from that step's checkpoint, and drops what came after it. On SIGINT or SIGTERM the
// step is finished, a checkpoint written, and the call returns.
void train(const Config& config, bool resume, std::optional<int64_t> from = {});

}  // namespace murmur
