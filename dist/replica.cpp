// dist/replica.cpp - batch, loss, backward, exchange, update, exchange.
#include "dist/replica.h"

#include <fmt/format.h>

#include "dist/collectives.h"  // share_begin
#include "tensor/ops.h"

namespace murmur {
namespace {

int64_t sequences_of(const ReplicaSettings& s, const Communicator& c, const Strategy& strategy) {
  int64_t least = s.batch_size / c.size();
  if (least < s.accumulation) {
    throw InputError(fmt::format(
        "batch_size: {} sequences are too few for {} ranks with {} micro-batches each; at least {}",
        s.batch_size, c.size(), s.accumulation, c.size() * s.accumulation));
  }
  int64_t over = s.batch_size % c.size();
  if (strategy.own_weights() && over != 0) {
    throw InputError(fmt::format(
        "batch_size: {} sequences are not as many for each of {} ranks, which count equally where "
        "each trains weights of its own; use {} or {}",
        s.batch_size, c.size(), s.batch_size - over, s.batch_size - over + c.size()));
  }
  return share_begin(s.batch_size, c.rank() + 1, c.size()) -
         share_begin(s.batch_size, c.rank(), c.size());
}

}  // namespace

Replica::Replica(const ReplicaSettings& s, Communicator& c, Strategy& strategy)
    : tokens({sequences_of(s, c, strategy), s.model.block_size}, DType::i32, s.device),
      targets(tokens.shape(), DType::i32, s.device),
      model(s.model, s.seed, s.activations, s.device, strategy.kept()),
      update(model.parameters, s.routes, s.clip, strategy.start(model.parameters, s.routes)),
      strategy_(strategy),
      first_(share_begin(s.batch_size, c.rank(), c.size())),
      loss_({}, compute_type(s.activations), s.device) {
  strategy.attach(update);
  double of = double(strategy.own_weights() ? sequences() : s.batch_size);
  for (int64_t i = 0; i < s.accumulation; i++) {
    int64_t begin = share_begin(sequences(), int(i), int(s.accumulation)),
            end = share_begin(sequences(), int(i) + 1, int(s.accumulation));
    Tensor seed(loss_.shape(), loss_.dtype(), s.device);
    ops::fill(seed, double(end - begin) / of);
    micro_batches_.push_back({begin, end, double(end - begin) / of, seed});
  }
}

void Replica::set_step(int64_t step, double schedule_factor) {
  strategy_.begin_step(step, schedule_factor);
  update.set_step(step, schedule_factor);
}

// Asks the device for everything and reads nothing back.
void Replica::step() {
  forward_backward();
  strategy_.before_update();
  update.apply();
  strategy_.after_update();
}

void Replica::with_weights_to_use(const std::function<void()>& work) {
  update.with_evaluation_values([&] {
    if (update.averages()) strategy_.share_weights();
    strategy_.with_common_weights(work);
  });
}

void Replica::forward_backward() {
  Parameters& parameters = model.parameters;
  parameters.begin_gradients();
  for (const MicroBatch& micro : micro_batches_) {
    bool first = &micro == &micro_batches_.front(), last = &micro == &micro_batches_.back();
    strategy_.begin_pass(first, last);
    Tape tape;
    Var loss =
        model.gpt.loss(tokens.slice(micro.begin, micro.end), targets.slice(micro.begin, micro.end));
    ops::scale(micro.weight, loss.value(), {loss_, !first});
    tape.backward(loss, micro.seed);
  }
  parameters.end_gradients();
}

}  // namespace murmur
