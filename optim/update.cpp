// optim/update.cpp - the one place where parameters move.
#include "optim/update.h"

#include <omp.h>

#include <cmath>

namespace murmur {
namespace {

// Elements of a slice: gradient, two states, weights and direction together fit a core's second
// cache.
constexpr int64_t kSlice = 32768;

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
  Device device = parameters.values().device();
  for (Tensor* x : {&step_, &schedule_, &squares_, &clip_factor_})
    *x = Tensor::zeros({1}, DType::f64, device);
}

void Update::set_step(int64_t step, double schedule_factor) {
  const Engine& e = engine(step_.device());
  e.copy(Tensor::of({double(step)}, {1}, DType::f64), step_);
  e.copy(Tensor::of({schedule_factor}, {1}, DType::f64), schedule_);
}

void Update::require_finite(double squares) const {
  if (std::isfinite(squares)) return;
  std::string where = "step " + std::to_string(int64_t(item(step_))) + ": ";
  for (const Parameter& p : parameters_.all()) {
    Tensor g = parameters_.gradient(p), own({1}, DType::f64, g.device());
    engine(g.device()).sum_of_squares(g, own);
    if (!std::isfinite(item(own))) {
      throw Error(where + "the gradient of '" + p.name +
                  "' is not finite; lower the learning rate or clip the gradient");
    }
  }
  throw Error(where + "the gradient norm overflows; lower the learning rate");
}

void Update::apply() {
  const Tensor& g = parameters_.gradients();
  const Engine& e = engine(g.device());
  e.sum_of_squares(g, squares_);
  if (g.device() == Device::cpu) require_finite(item(squares_));
  bool clipped = clip_norm_ > 0;
  if (clipped) {
    e.clip_factor(squares_, clip_norm_, clip_factor_);
    if (g.device() == Device::cpu) clipped = item(clip_factor_) != 1;  // known here: spare the pass
  }
  for (size_t i = 0; i < states_.size(); i++) {
    assigned_[i]->use.optimizer->elementwise() ? step_slices(i, clipped) : step_whole(i, clipped);
  }
}

Update::Rate Update::rate_of(const Route& route) const {
  const Optimizer& optimizer = *route.use.optimizer;
  return {{optimizer.learning_rate * route.lr_scale, schedule_},
          route.decay ? optimizer.weight_decay : 0};
}

void Update::step_whole(size_t i, bool clipped) {
  Bank& bank = parameters_.banks()[i];
  const Engine& e = engine(bank.value.device());
  auto like_bank = [&] {
    return Tensor(bank.value.shape(), bank.value.dtype(), bank.value.device());
  };
  Tensor gradient = bank.gradient, direction = like_bank();
  if (clipped) {
    gradient = like_bank();
    e.scale({1, clip_factor_}, bank.gradient, {gradient});
  }
  assigned_[i]->use.optimizer->direction(bank, gradient, states_[i], step_, direction);
  Rate rate = rate_of(*assigned_[i]);
  e.descend(rate.lr, rate.decay, direction, bank.value, bank.shadow);
}

// Elementwise optimizers go through a bank slice by slice: direction and step of a slice follow
// each other while it is in the cache, so the direction never travels to memory and back. On a GPU
// the slice is the bank: a launch costs more than the journey.
void Update::step_slices(size_t i, bool clipped) {
  Bank& bank = parameters_.banks()[i];
  Device device = bank.value.device();
  const Engine& e = engine(device);
  int64_t n = bank.value.numel(), slice = device == Device::cpu ? std::min(n, kSlice) : n,
          slices = (n + slice - 1) / slice;
  int64_t threads = slices > 1 ? omp_get_max_threads() : 1;
  Tensor scratch({threads, clipped ? 2 : 1, slice}, bank.value.dtype(), device);
  Rate rate = rate_of(*assigned_[i]);
  auto flat = [&](const Tensor& x) { return x.view({n}); };
  auto update_slice = [&](int64_t s) {
    int64_t begin = s * slice, end = std::min(n, begin + slice), thread = omp_get_thread_num();
    Tensor buffers = scratch.slice(thread, thread + 1).view({scratch.shape()[1] * slice});
    Tensor direction = buffers.slice(0, end - begin);
    Tensor gradient = flat(bank.gradient).slice(begin, end),
           value = flat(bank.value).slice(begin, end), shadow;
    if (bank.shadow) shadow = flat(bank.shadow).slice(begin, end);
    if (clipped) {
      Tensor scaled = buffers.slice(slice, slice + end - begin);
      e.scale({1, clip_factor_}, gradient, {scaled});
      gradient = scaled;
    }
    State state;
    for (auto& [name, tensor] : states_[i]) state[name] = flat(tensor).slice(begin, end);
    assigned_[i]->use.optimizer->direction(bank, gradient, state, step_, direction);
    e.descend(rate.lr, rate.decay, direction, value, shadow);
  };
  if (slices == 1) return update_slice(0);  // its kernels use all threads themselves
#pragma omp parallel for schedule(static)
  for (int64_t s = 0; s < slices; s++) update_slice(s);
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
