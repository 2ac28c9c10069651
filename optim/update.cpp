// optim/update.cpp - the one place where parameters move.
#include "optim/update.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <exception>

#include "optim/qk_clip.h"

namespace murmur {
namespace {

// Elements of a slice: gradient, two states, weights and direction together fit a core's second
// cache.
constexpr int64_t kSlice = 32768;

}  // namespace

Update::Update(Parameters& parameters, std::vector<Route> routes, double clip_norm)
    : parameters_(parameters), routes_(std::move(routes)), clip_norm_(clip_norm) {
  std::vector<const Route*> assigned = assign_routes(routes_, parameters.banks());
  for (size_t i = 0; i < assigned.size(); i++) {
    Part part{with_row_blocks(parameters.banks()[i], assigned[i]->row_blocks), assigned[i], {}};
    start(part.state, part);
    largest_score_ = std::max(largest_score_, part.optimizer().largest_score());
    parts_.push_back(std::move(part));
  }
  if (largest_score_ > 0) parameters.watch_scores();
  Device device = parameters.values().device();
  for (Tensor* x : {&step_, &schedule_, &squares_, &clip_factor_})
    *x = Tensor::zeros({1}, DType::f64, device);
}

void Update::start(State& state, const Part& part) const {
  const Bank& bank = part.bank;
  for (const StateShape& s : part.optimizer().state(bank)) {
    check(s.shape.rank() > 0 && s.shape[0] == bank.count,
          [&] { return "optimizer state '" + s.name + "' does not start with the bank's count"; });
    Tensor x = Tensor::zeros(s.shape, bank.value.dtype(), bank.value.device());
    int64_t blocks = bank.count / int64_t(bank.members.size());
    for (int64_t k = 0; s.deviation != 0 && k < bank.count; k++) {
      // A function of the parameter's name alone, as its first values are.
      const std::string& name = bank.members[size_t(k / blocks)]->name;
      Tensor one = x.slice(k, k + 1);
      engine(x.device())
          .random_normal(uint64_t(k % blocks), stream_of(name + "." + s.name), 0, s.deviation, one);
    }
    state[s.name] = x;
  }
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
  std::vector<Matrix> matrices;
  for (Part& part : parts_) {
    if (part.optimizer().elementwise()) {
      step_slices(part, clipped);
    } else if (g.device() == Device::cpu && part.bank.count >= omp_get_max_threads()) {
      for (int64_t k = 0; k < part.bank.count; k++) matrices.push_back({&part, k});
    } else {
      step_bank(part, part.bank, part.state, clipped);
    }
  }
  step_matrices(std::move(matrices), clipped);
  if (largest_score_ > 0) qk_clip(parameters_, largest_score_);
}

Factor Update::Part::rate(const Tensor& schedule) const {
  return {optimizer().learning_rate * route->lr_scale, schedule};
}
double Update::Part::decay() const { return route->decay ? optimizer().weight_decay : 0; }

// What `part` decays by in the step itself.
static double decay_of_step(const Optimizer& optimizer, double decay) {
  return optimizer.decays_itself() ? 0 : decay;
}

// `bank` and `state`: of the part, or of some of its matrices.
void Update::step_bank(const Part& part, Bank& bank, State& state, bool clipped) {
  const Optimizer& optimizer = part.optimizer();
  const Engine& e = engine(bank.value.device());
  auto like_bank = [&] {
    return Tensor(bank.value.shape(), bank.value.dtype(), bank.value.device());
  };
  Tensor gradient = bank.gradient, direction = like_bank();
  if (clipped) {
    gradient = like_bank();
    e.scale({1, clip_factor_}, bank.gradient, {gradient});
  }
  Factor rate = part.rate(schedule_);
  optimizer.direction({bank, gradient, bank.value, state, step_, rate, part.decay()}, direction);
  e.descend(rate, decay_of_step(optimizer, part.decay()), optimizer.cautious_decay, direction,
            bank.value, bank.shadow);
}

// On cores of a CPU, a matrix to each: everything about it happens in one core's cache, and nobody
// waits for anybody. That changes no bit, because a matrix's result does not depend on its
// neighbours in the bank (tests/optim/contract_test.cpp). A GPU takes whole banks.
void Update::step_matrices(std::vector<Matrix> matrices, bool clipped) {
  auto cost = [](const Matrix& m) {
    const Bank& bank = m.part->bank;
    return bank.rows * bank.cols * std::min(bank.rows, bank.cols);
  };
  std::stable_sort(matrices.begin(), matrices.end(),
                   [&](const Matrix& a, const Matrix& b) { return cost(a) > cost(b); });
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic, 1)
  for (size_t i = 0; i < matrices.size(); i++) {
    try {
      auto [part, k] = matrices[i];
      auto own = [k = k](const Tensor& x) { return x ? x.slice(k, k + 1) : x; };
      const Bank& all = part->bank;
      Bank bank{all.name,          all.role,        1, all.rows, all.cols, own(all.value),
                own(all.gradient), own(all.shadow), {}};
      State state;
      for (const auto& [name, tensor] : part->state) state[name] = own(tensor);
      step_bank(*part, bank, state, clipped);
    } catch (...) {
#pragma omp critical
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

// Elementwise optimizers go through a bank slice by slice: direction and step of a slice follow
// each other while it is in the cache, so the direction never travels to memory and back. On a GPU
// the slice is the bank: a launch costs more than the journey.
void Update::step_slices(Part& part, bool clipped) {
  Bank& bank = part.bank;
  const Optimizer& optimizer = part.optimizer();
  Device device = bank.value.device();
  const Engine& e = engine(device);
  int64_t n = bank.value.numel(), slice = device == Device::cpu ? std::min(n, kSlice) : n,
          slices = (n + slice - 1) / slice;
  int64_t threads = slices > 1 ? omp_get_max_threads() : 1;
  Tensor scratch({threads, clipped ? 2 : 1, slice}, bank.value.dtype(), device);
  Factor rate = part.rate(schedule_);
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
    for (auto& [name, tensor] : part.state) state[name] = flat(tensor).slice(begin, end);
    optimizer.direction({bank, gradient, value, state, step_, rate, part.decay()}, direction);
    e.descend(rate, decay_of_step(optimizer, part.decay()), optimizer.cautious_decay, direction,
              value, shadow);
  };
  if (slices == 1) return update_slice(0);  // its kernels use all threads themselves
#pragma omp parallel for schedule(static)
  for (int64_t s = 0; s < slices; s++) update_slice(s);
}

bool Update::averages() const {
  return std::any_of(parts_.begin(), parts_.end(),
                     [](const Part& part) { return part.optimizer().averages(); });
}

void Update::with_evaluation_values(const std::function<void()>& work) {
  if (!averages()) return work();
  Tensor& values = parameters_.values();
  const Engine& e = engine(values.device());
  Tensor training(values.shape(), values.dtype(), values.device());
  e.copy(values, training);
  for (Part& part : parts_) {
    if (part.optimizer().averages()) part.optimizer().evaluation_value(part.state, part.bank.value);
  }
  parameters_.refresh_shadow();
  auto put_back = [&] {
    e.copy(training, values);
    parameters_.refresh_shadow();
  };
  try {
    work();
  } catch (...) {
    put_back();
    throw;
  }
  put_back();
}

std::vector<Update::NamedState> Update::named_state() const {
  std::vector<NamedState> all;
  for (const Part& part : parts_) {
    const Bank& bank = part.bank;
    int64_t blocks = bank.count / int64_t(bank.members.size());
    for (const auto& [name, tensor] : part.state) {
      for (size_t i = 0; i < bank.members.size(); i++) {
        int64_t begin = int64_t(i) * blocks;
        all.push_back({bank.members[i]->name + "." + name, tensor.slice(begin, begin + blocks)});
      }
    }
  }
  return all;
}

int64_t Update::state_bytes() const {
  int64_t bytes = 0;
  for (const Part& part : parts_) {
    for (const auto& [name, tensor] : part.state) bytes += int64_t(tensor.bytes());
  }
  return bytes;
}

}  // namespace murmur
