// train/trainer.h - the training loop, and what a run folder remembers of it.
//
//   RUN/config.toml  identity.json  log.jsonl  loss.png  tokenizer.json  checkpoint/
#pragma once

#include <functional>
#include <optional>

#include "tensor/check.h"
#include "train/config.h"
#include "train/log.h"

namespace murmur {

class Communicator;

struct TrainSummary {
  int64_t step = 0;          // the last one done
  int64_t state_bytes = 0;   // of the optimizers' state
  // Where it is not done, steps, or the last validation, are left for --resume.
  enum End { done, interrupted, out_of_time } end = done;
};

// The loss or a gradient is not finite: too high a learning rate, nearly always.
struct Diverged : Error {
  using Error::Error;
};

// Trains and writes the run folder. With `resume` it goes on from the newest checkpoint, bit for
// bit as if it had never stopped; without, a folder that holds a checkpoint is refused. With `from`
// it goes on from that step's checkpoint (perhaps kBestStep), and drops what came after it. On a
// signal that asks for it (train/interrupt.h), and ahead of config.max_minutes, the step is
// finished, a checkpoint written, and the call returns.
//
// With `watch` nothing is printed: it sees every row of the log instead, and whoever watches has
// called catch_interrupts().
TrainSummary train(const Config& config, bool resume, std::optional<int64_t> from = {},
                   std::function<void(const LogRow&)> watch = {});

// The part of one rank in it, which is there already. Where it throws Diverged, all ranks do.
TrainSummary train_rank(Communicator& c, const Config& config, bool resume,
                        std::optional<int64_t> from, std::function<void(const LogRow&)> watch);

}  // namespace murmur
