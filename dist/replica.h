// dist/replica.h - what one rank trains: a model, its update, and the strategy that ties it to
// those of the other ranks. The step of docs/tour.md.
#pragma once

#include "dist/strategy.h"
#include "nn/model.h"
#include "optim/update.h"

namespace murmur {

struct ReplicaSettings {
  GptConfig model;
  uint64_t seed = 0;
  DType activations = DType::f32;
  Device device = Device::cpu;
  std::vector<Route> routes;
  Clip clip;
  int64_t batch_size = 1;    // sequences of a step, over all ranks
  int64_t accumulation = 1;  // micro-batches of a rank
};

class Replica {
 public:
  // The strategy has joined `c`; both must outlive this.
  Replica(const ReplicaSettings& settings, Communicator& c, Strategy& strategy);
  Replica(const Replica&) = delete;

  // The sequences [first_sequence, first_sequence + sequences) of each step's batch are this
  // rank's: neighbouring ranks have neighbouring ones, and as many, or one more where all train the
  // same weights.
  int64_t first_sequence() const { return first_; }
  int64_t sequences() const { return tokens.rows(); }
  Tensor tokens, targets;  // (sequences, block) int32, to be filled before a step

  // Two calls, because the second can be captured and replayed (tensor/backend.h).
  void set_step(int64_t step, double schedule_factor);
  void step();
  // What this rank adds to the mean loss of the step: over all sequences, or, where ranks train
  // weights of their own, over this one's. A number beside the parameters.
  const Tensor& loss() const { return loss_; }

  // Calls work() while the weights are those to evaluate, sample from and publish, on all ranks:
  // what averaging optimizers average, and the mean where ranks train weights of their own.
  void with_weights_to_use(const std::function<void()>& work);

  Model model;
  Update update;

 private:
  void forward_backward();

  Strategy& strategy_;
  int64_t first_;
  struct MicroBatch {
    int64_t begin, end;
    double weight;  // of its mean loss in loss()
    Tensor seed;    // the same, as the gradient that backward starts from
  };
  std::vector<MicroBatch> micro_batches_;
  Tensor loss_;
};

}  // namespace murmur
