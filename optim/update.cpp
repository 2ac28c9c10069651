// optim/update.cpp - the one place where parameters move.
#include "optim/update.h"

#include <omp.h>

#include <cmath>

namespace murmur {
namespace {

// Elements of a slice: gradient, two states, weights and direction together fit a core's second
// cache.
constexpr int64_t kSlice = 32768;

[[noreturn]] void report_not_finite(Parameters& parameters, int64_t step) {
  for (const Parameter& p : parameters.all()) {
    Tensor g = parameters.gradient(p);
    if (!std::isfinite(engine(g.device()).sum_of_squares(g))) {
      throw Error("step " + std::to_string(step) + ": the gradient of '" + p.name +
                  "' is not finite; lower the learning rate or clip the gradient");
    }
  }
  throw Error("step " + std::to_string(step) +
              ": the gradient norm overflows; lower the learning rate");
}

}  // namespace

Update::Update(Parameters& parameters, std::vector<Route> routes, double clip_norm)
    : parameters_(parameters), routes_(std::move(routes)), clip_norm_(clip_norm) {
  assigned_ = assign_routes(routes_, parameters.banks());
  for (size_t i = 0; i < assigned_.size(); i++) {
    const Bank& bank = parameters.banks()[i];
    State state;
    for (const StateShape& s : assigned_[i]->use.optimizer->state(bank)) {
      check(s.shape.rank() > 0 && s.shape[0] == bank.count, [&] {
        return "optimizer state '" + s.name + "' does not start with the bank's count";
      });
      state[s.name] = Tensor::zeros(s.shape, bank.value.dtype(), bank.value.device());
    }
    states_.push_back(std::move(state));
  }
}

UpdateResult Update::step(int64_t step, double schedule_factor) {
  Tensor& g = parameters_.gradients();
  double norm = std::sqrt(engine(g.device()).sum_of_squares(g));
  if (!std::isfinite(norm)) report_not_finite(parameters_, step);
  double gradient_scale = clip_norm_ > 0 ? std::min(1.0, clip_norm_ / (norm + 1e-6)) : 1.0;
  for (size_t i = 0; i < states_.size(); i++) {
    const Route& route = *assigned_[i];
    const Optimizer& optimizer = *route.use.optimizer;
    double lr = optimizer.learning_rate * route.lr_scale * schedule_factor;
    double keep = 1 - lr * (route.decay ? optimizer.weight_decay : 0);
    optimizer.elementwise() ? step_slices(i, step, gradient_scale, lr, keep)
                            : step_whole(i, step, gradient_scale, lr, keep);
  }
  return {norm};
}

void Update::step_whole(size_t i, int64_t step, double gradient_scale, double lr, double keep) {
  Bank& bank = parameters_.banks()[i];
  const Engine& e = engine(bank.value.device());
  Tensor gradient = bank.gradient,
         direction(bank.value.shape(), bank.value.dtype(), bank.value.device());
  if (gradient_scale != 1) {
    gradient = Tensor(bank.value.shape(), bank.value.dtype(), bank.value.device());
    e.scale(gradient_scale, bank.gradient, {gradient});
  }
  assigned_[i]->use.optimizer->direction(bank, gradient, states_[i], step, direction);
  e.descend(lr, keep, direction, bank.value);
  if (bank.shadow) e.copy(bank.value, bank.shadow);
}

// Elementwise optimizers go through a bank slice by slice: direction and step of a slice follow
// each other while it is in the cache, so the direction never travels to memory and back.
void Update::step_slices(size_t i, int64_t step, double gradient_scale, double lr, double keep) {
  Bank& bank = parameters_.banks()[i];
  const Engine& e = engine(bank.value.device());
  int64_t n = bank.value.numel(), slices = (n + kSlice - 1) / kSlice;
  Tensor scratch({omp_get_max_threads(), 2, std::min(n, kSlice)}, bank.value.dtype(),
                 bank.value.device());
  auto flat = [&](const Tensor& x) { return x.view({n}); };
#pragma omp parallel for schedule(static)
  for (int64_t slice = 0; slice < slices; slice++) {
    int64_t begin = slice * kSlice, end = std::min(n, begin + kSlice);
    Tensor buffers =
        scratch.slice(omp_get_thread_num(), omp_get_thread_num() + 1).view({2 * scratch.cols()});
    Tensor direction = buffers.slice(0, end - begin);
    Tensor gradient = flat(bank.gradient).slice(begin, end),
           value = flat(bank.value).slice(begin, end);
    if (gradient_scale != 1) {
      Tensor scaled = buffers.slice(scratch.cols(), scratch.cols() + end - begin);
      e.scale(gradient_scale, gradient, {scaled});
      gradient = scaled;
    }
    State state;
    for (auto& [name, tensor] : states_[i]) state[name] = flat(tensor).slice(begin, end);
    assigned_[i]->use.optimizer->direction(bank, gradient, state, step, direction);
    e.descend(lr, keep, direction, value);
    if (bank.shadow) {
      Tensor shadow = flat(bank.shadow).slice(begin, end);
      e.copy(value, shadow);
    }
  }
}

std::vector<Update::NamedState> Update::named_state() const {
  std::vector<NamedState> all;
  for (size_t i = 0; i < states_.size(); i++) {
    const Bank& bank = parameters_.banks()[i];
    for (const auto& [name, tensor] : states_[i]) {
      for (int64_t k = 0; k < bank.count; k++) {
        all.push_back({bank.members[size_t(k)]->name + "." + name, tensor.slice(k, k + 1)});
      }
    }
  }
  return all;
}

int64_t Update::state_bytes() const {
  int64_t bytes = 0;
  for (const State& state : states_) {
    for (const auto& [name, tensor] : state) bytes += int64_t(tensor.bytes());
  }
  return bytes;
}

}  // namespace murmur
