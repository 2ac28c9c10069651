// optim/update.cpp - the one place where parameters move.
#include "optim/update.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <exception>

#include "optim/qk_clip.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

// Elements of a slice: gradient, two states, weights and direction together fit a core's second
// cache.
constexpr int64_t kSlice = 32768;

}  // namespace

Update::Update(Parameters& parameters, std::vector<Route> routes, Clip clip)
    : Update(parameters, std::move(routes), clip, {}) {}

Update::Update(Parameters& parameters, std::vector<Route> routes, Clip clip, Share share)
    : parameters_(parameters),
      routes_(std::move(routes)),
      share_(std::move(share)),
      everything_(share_.banks.empty()),
      clip_(clip) {
  if (everything_) share_.banks = parameters.banks();
  std::vector<const Route*> assigned = assign_routes(routes_, share_.banks);
  for (size_t i = 0; i < assigned.size(); i++) parts_.push_back(make_part(assigned[i], i));
  for (const Route& route : routes_)
    largest_score_ = std::max(largest_score_, route.use.optimizer->largest_score());
  if (largest_score_ > 0) parameters.watch_scores();
  Device device = parameters.values().device();
  for (Tensor* x : {&step_, &schedule_, &squares_, &clip_factor_})
    *x = Tensor::zeros({1}, DType::f64, device);
}

namespace {

// Zeros, or a function of the parameter's name alone, as its first values are.
Tensor first_state(const StateShape& s, const Bank& bank, const Tensor& like) {
  check(s.shape.rank() > 0 && s.shape[0] == bank.count,
        [&] { return "optimizer state '" + s.name + "' does not start with the bank's count"; });
  Tensor x = Tensor::zeros(s.shape, like.dtype(), like.device());
  for (int64_t k = 0; s.deviation != 0 && k < bank.count; k++) {
    int64_t blocks = bank.count / int64_t(bank.members.size());
    const std::string& name = bank.members[size_t(k / blocks)]->name;
    Tensor one = x.slice(k, k + 1);
    ops::random_normal(uint64_t(k % blocks), stream_of(name + "." + s.name), 0, s.deviation, one);
  }
  return x;
}

bool has_all_rows(const Bank& bank) {
  return bank.members.empty() || bank.rows == bank.members[0]->shape.rows();
}

}  // namespace

Update::Part Update::make_part(const Route* route, size_t i) const {
  const Bank& bank = share_.banks[i];
  const Optimizer& optimizer = *route->use.optimizer;
  Part part{bank, route, {}, {}, {}};
  if (optimizer.elementwise() || !share_.gather) {
    // To who goes entry by entry, blocks of rows mean nothing.
    if (has_all_rows(bank)) part.bank = with_row_blocks(bank, route->row_blocks);
    for (const StateShape& s : optimizer.state(part.bank))
      part.state[s.name] = first_state(s, part.bank, bank.value);
    return part;
  }
  part.whole = with_row_blocks(share_.whole[i], route->row_blocks);
  std::vector<StateShape> of_rows = optimizer.state(part.bank),
                          of_matrices = optimizer.state(part.whole);
  for (size_t s = 0; s < of_rows.size(); s++) {
    if (of_rows[s].entrywise) {
      part.row_state[of_rows[s].name] = first_state(of_rows[s], part.bank, bank.value);
    } else {
      part.state[of_rows[s].name] = first_state(of_matrices[s], part.whole, bank.value);
    }
  }
  return part;
}

void Update::set_step(int64_t step, double schedule_factor) {
  ops::copy(Tensor::of({double(step)}, {1}, DType::f64), step_);
  ops::copy(Tensor::of({schedule_factor}, {1}, DType::f64), schedule_);
  clip_norm_ = clip_.norm * std::pow(double(step), clip_.growth);
}

void Update::require_finite(double squares) const {
  if (std::isfinite(squares)) return;
  std::string where = "step " + std::to_string(int64_t(item(step_))) + ": ";
  for (const Bank& bank : share_.banks) {
    for (int64_t k = 0; k < bank.count; k++) {
      Tensor own({1}, DType::f64, bank.gradient.device());
      ops::sum_of_squares(bank.gradient.slice(k, k + 1), own);
      if (!std::isfinite(item(own))) {
        throw Error(where + "the gradient of '" + bank.members[size_t(k)]->name +
                    "' is not finite; lower the learning rate or clip the gradient");
      }
    }
  }
  throw Error(where + (everything_ ? "the gradient norm overflows; lower the learning rate"
                                   : "a gradient is not finite; lower the learning rate"));
}

void Update::measure() {
  const Tensor& g = parameters_.gradients();
  if (everything_) {
    ops::sum_of_squares(g, squares_);
  } else {
    ops::fill(squares_, 0);
    Tensor own(squares_.shape(), squares_.dtype(), squares_.device());
    for (const Bank& bank : share_.banks) {
      ops::sum_of_squares(bank.gradient, own);
      ops::scale(1, own, {squares_, true});
    }
  }
  if (share_.sum_squares) share_.sum_squares(squares_);
  if (g.device() == Device::cpu) require_finite(item(squares_));
  clips_now_ = clip_norm_ > 0;
  if (clips_now_) {
    ops::clip_factor(squares_, clip_norm_, clip_.exactly, clip_factor_);
    if (g.device() == Device::cpu) clips_now_ = item(clip_factor_) != 1;  // known: spare the pass
  }
}

void Update::apply() {
  measure();
  bool on_cpu = parameters_.values().device() == Device::cpu;
  std::vector<Matrix> matrices;
  std::vector<size_t> of_rows;
  for (size_t i = 0; i < parts_.size(); i++) {
    Part& part = parts_[i];
    if (const Adam* adam = part.optimizer().adam()) {
      step_adam(part, *adam);
    } else if (part.optimizer().elementwise()) {
      step_slices(part);
    } else if (share_.gather) {
      of_rows.push_back(i);
    } else if (on_cpu && part.bank.count >= omp_get_max_threads()) {
      for (int64_t k = 0; k < part.bank.count; k++) matrices.push_back({&part, k});
    } else if (part.bank.count > 0) {
      step_bank(part, part.bank, part.state);
    }
  }
  each_matrix(std::move(matrices), [this](Part& part, Bank& bank, State& state, int64_t) {
    step_bank(part, bank, state);
  });
  if (!of_rows.empty()) step_rows(std::move(of_rows));
  if (largest_score_ > 0) {
    if (share_.join_scores) share_.join_scores();
    qk_clip(parameters_, largest_score_);
  }
}

Factor Update::Part::rate(const Tensor& schedule) const {
  return {optimizer().learning_rate * route->lr_scale, schedule};
}
double Update::Part::decay() const { return route->decay ? optimizer().weight_decay : 0; }

// What `part` decays by in the step itself.
static double decay_of_step(const Optimizer& optimizer, double decay) {
  return optimizer.decays_itself() ? 0 : decay;
}

Tensor Update::clipped(const Bank& bank) const {
  if (!clips_now_) return bank.gradient;
  const Tensor& g = bank.gradient;
  Tensor gradient(g.shape(), g.dtype(), g.device());
  ops::scale({1, clip_factor_}, g, {gradient});
  return gradient;
}

Question Update::question(const Part& part, const Bank& bank, Tensor gradient, Tensor value,
                          State& state) const {
  return {bank,  std::move(gradient),  std::move(value), state,
          step_, part.rate(schedule_), part.decay()};
}

// `bank` and `state`: of the part, or of some of its matrices.
void Update::step_bank(Part& part, Bank& bank, State& state) {
  const Optimizer& optimizer = part.optimizer();
  Tensor direction(bank.value.shape(), bank.value.dtype(), bank.value.device());
  Tensor begun = optimizer.begin(question(part, bank, clipped(bank), bank.value, state));
  optimizer.direction(question(part, bank, begun, bank.value, state), direction);
  ops::apply_update(part.rate(schedule_), decay_of_step(optimizer, part.decay()),
                    optimizer.cautious_decay, direction, bank.value, bank.shadow);
}

// On cores of a CPU, a matrix to each: everything about it happens in one core's cache, and nobody
// waits for anybody. That changes no bit, because a matrix's result does not depend on its
// neighbours in the bank (tests/optim/contract_test.cpp). A GPU takes whole banks.
void Update::each_matrix(std::vector<Matrix> matrices, const Work& work) const {
  auto bank_of = [](const Matrix& m) -> const Bank& {
    return m.part->whole.name.empty() ? m.part->bank : m.part->whole;
  };
  auto cost = [&](const Matrix& m) {
    const Bank& bank = bank_of(m);
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
      const Bank& all = bank_of(matrices[i]);
      Bank bank{all.name,          all.role,        1, all.rows, all.cols, own(all.value),
                own(all.gradient), own(all.shadow), {}};
      State state;
      for (const auto& [name, tensor] : part->state) state[name] = own(tensor);
      work(*part, bank, state, k);
    } catch (...) {
#pragma omp critical
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

// Clipping, direction, decay and step of every element in one pass.
void Update::step_adam(Part& part, const Adam& adam) {
  Bank& bank = part.bank;
  Factor clip = clips_now_ ? Factor(1, clip_factor_) : Factor(1);
  ops::adam_update(clip, bank.gradient, part.state["m"], part.state["v"], adam.beta1, adam.beta2,
                   adam.eps, step_, part.rate(schedule_), part.decay(),
                   part.optimizer().cautious_decay, bank.value, bank.shadow);
}

// Other elementwise optimizers go through a bank slice by slice: direction and step of a slice
// follow each other while it is in the cache, so the direction never travels to memory and back. On
// a GPU the slice is the bank: a launch costs more than the journey.
void Update::step_slices(Part& part) {
  Bank& bank = part.bank;
  const Optimizer& optimizer = part.optimizer();
  Device device = bank.value.device();
  int64_t n = bank.value.numel(), slice = device == Device::cpu ? std::min(n, kSlice) : n;
  if (n == 0) return;
  int64_t slices = (n + slice - 1) / slice, threads = slices > 1 ? omp_get_max_threads() : 1;
  Tensor scratch({threads, clips_now_ ? 2 : 1, slice}, bank.value.dtype(), device);
  Factor rate = part.rate(schedule_);
  auto flat = [&](const Tensor& x) { return x.view({n}); };
  auto update_slice = [&](int64_t s) {
    int64_t begin = s * slice, end = std::min(n, begin + slice), thread = omp_get_thread_num();
    Tensor buffers = scratch.slice(thread, thread + 1).view({scratch.shape()[1] * slice});
    Tensor direction = buffers.slice(0, end - begin);
    Tensor gradient = flat(bank.gradient).slice(begin, end),
           value = flat(bank.value).slice(begin, end), shadow;
    if (bank.shadow) shadow = flat(bank.shadow).slice(begin, end);
    if (clips_now_) {
      Tensor scaled = buffers.slice(slice, slice + end - begin);
      ops::scale({1, clip_factor_}, gradient, {scaled});
      gradient = scaled;
    }
    State state;
    for (auto& [name, tensor] : part.state) state[name] = flat(tensor).slice(begin, end);
    Tensor begun = optimizer.begin(question(part, bank, gradient, value, state));
    optimizer.direction(question(part, bank, begun, value, state), direction);
    ops::apply_update(rate, decay_of_step(optimizer, part.decay()), optimizer.cautious_decay,
                      direction, value, shadow);
  };
  if (slices == 1) return update_slice(0);  // its kernels use all threads themselves
#pragma omp parallel for schedule(static)
  for (int64_t s = 0; s < slices; s++) update_slice(s);
}

// For the matrices of part i that are put together here: all of their rows, and how the optimizer
// sees them.
Tensor Update::matrices(size_t i, DType type) const {
  const Bank& bank = share_.whole[i];
  return Tensor({bank.count, bank.rows, bank.cols}, type, parameters_.values().device());
}
Tensor Update::as_blocks(const Tensor& x, const Part& part) {
  return x ? x.view({part.whole.count, part.whole.rows, part.whole.cols}) : x;
}

// Rows of matrices are here, and whole matrices are wanted: begin() on the rows, everything else
// where the matrix is put together, and the direction's rows back.
void Update::step_rows(std::vector<size_t> parts) {
  Device device = parameters_.values().device();
  std::vector<Tensor> rows(parts_.size()), values(rows), whole(rows), whole_values(rows),
      found(rows);
  bool any_values = false;
  for (size_t i : parts) {
    Part& part = parts_[i];
    DType type = part.bank.value.dtype();
    rows[i] = part.optimizer().begin(
        question(part, part.bank, clipped(part.bank), part.bank.value, part.row_state));
    whole[i] = matrices(i, rows[i].dtype());
    found[i] = matrices(i, type);
    if (part.optimizer().decays_itself() && part.decay() != 0) {
      any_values = true;
      values[i] = part.bank.value;
      whole_values[i] = matrices(i, type);
    }
  }
  share_.gather(rows, whole);
  if (any_values) share_.gather(values, whole_values);

  std::vector<Matrix> single;
  auto direction = [&](Part& part, const Bank& bank, State& state, int64_t k, int64_t end) {
    size_t i = size_t(&part - parts_.data());
    Tensor begun = as_blocks(whole[i], part).slice(k, end),
           d = as_blocks(found[i], part).slice(k, end), value = as_blocks(whole_values[i], part);
    if (value) value = value.slice(k, end);
    part.optimizer().direction(question(part, bank, begun, value, state), d);
  };
  for (size_t i : parts) {
    Part& part = parts_[i];
    if (device == Device::cpu) {
      for (int64_t k = 0; k < part.whole.count; k++) single.push_back({&part, k});
    } else if (part.whole.count > 0) {
      direction(part, part.whole, part.state, 0, part.whole.count);
    }
  }
  each_matrix(std::move(single), [&](Part& part, Bank& bank, State& state, int64_t k) {
    direction(part, bank, state, k, k + 1);
  });
  for (size_t i : parts) {
    const Tensor& value = parts_[i].bank.value;
    rows[i] = Tensor(value.shape(), value.dtype(), value.device());
  }
  share_.scatter(found, rows);
  for (size_t i : parts) {
    Part& part = parts_[i];
    if (part.bank.value.numel() == 0) continue;
    ops::apply_update(part.rate(schedule_), decay_of_step(part.optimizer(), part.decay()),
                      part.optimizer().cautious_decay, rows[i], part.bank.value, part.bank.shadow);
  }
}

bool Update::averages() const {
  return std::any_of(parts_.begin(), parts_.end(),
                     [](const Part& part) { return part.optimizer().averages(); });
}

void Update::with_evaluation_values(const std::function<void()>& work) {
  if (!averages()) return work();
  Tensor& values = parameters_.values();
  Tensor training(values.shape(), values.dtype(), values.device());
  ops::copy(values, training);
  std::vector<Tensor> rows(parts_.size()), whole(rows);  // of matrices that are elsewhere
  bool of_rows = false;
  for (size_t i = 0; i < parts_.size(); i++) {
    Part& part = parts_[i];
    if (!part.optimizer().averages()) continue;
    if (part.whole.name.empty()) {
      part.optimizer().evaluation_value(part.state, part.bank.value);
    } else {
      rows[i] = part.bank.value;
      whole[i] = matrices(i, values.dtype());
      of_rows = true;
    }
  }
  if (of_rows) {
    share_.gather(rows, whole);
    for (size_t i = 0; i < parts_.size(); i++) {
      if (!whole[i]) continue;
      Tensor blocks = as_blocks(whole[i], parts_[i]);
      parts_[i].optimizer().evaluation_value(parts_[i].state, blocks);
    }
    share_.scatter(whole, rows);
  }
  parameters_.refresh_shadow();
  auto put_back = [&] {
    ops::copy(training, values);
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
    auto add = [&](const Bank& bank, const std::string& name, const Tensor& tensor, bool rows) {
      if (bank.members.empty()) return;
      int64_t members = int64_t(bank.members.size()), blocks = bank.count / members;
      const Parameter& first = *bank.members[0];
      Bank one{"", bank.role, 1, first.shape.rows(), first.shape.cols(), {}, {}, {}, {&first}};
      Shape whole;
      for (const StateShape& s :
           part.optimizer().state(with_row_blocks(one, part.route->row_blocks)))
        if (s.name == name) whole = s.shape;
      for (int64_t i = 0; i < members; i++)
        all.push_back({bank.members[size_t(i)]->name + "." + name,
                       tensor.slice(i * blocks, (i + 1) * blocks), whole,
                       rows ? bank.first_row * bank.cols : 0});
    };
    bool of_rows = !has_all_rows(part.bank);
    for (const auto& [name, tensor] : part.row_state) add(part.bank, name, tensor, true);
    for (const auto& [name, tensor] : part.state)
      add(part.whole.name.empty() ? part.bank : part.whole, name, tensor,
          part.whole.name.empty() && of_rows);
  }
  return all;
}

int64_t Update::state_bytes() const {
  int64_t bytes = 0;
  for (const Part& part : parts_) {
    for (const State* state : {&part.state, &part.row_state})
      for (const auto& [name, tensor] : *state) bytes += int64_t(tensor.bytes());
  }
  return bytes;
}

}  // namespace murmur
