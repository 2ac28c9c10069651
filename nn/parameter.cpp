// nn/parameter.cpp - the layout of the flat buffer and its first values.
#include "nn/parameter.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "tensor/ops.h"

namespace murmur {
namespace {

constexpr int64_t kAlignment = 128;  // elements: every bank starts on 256 bytes, in bf16 too

}  // namespace

uint64_t stream_of(const std::string& name) {
  uint64_t h = 0xcbf29ce484222325u;
  for (unsigned char c : name) h = (h ^ c) * 0x100000001b3u;
  return h;
}

const char* name_of(Role role) {
  switch (role) {
    case Role::matrix:
      return "matrix";
    case Role::embedding:
      return "embedding";
    case Role::head:
      return "head";
    case Role::vector:
      return "vector";
  }
  return "?";
}

Parameter& Parameters::add(std::string name, Shape shape, Role role, double deviation, double mean,
                           bool rounded) {
  check(banks_.empty(), "parameters: add() after allocate()");
  for (const Parameter& p : parameters_)
    check(p.name != name, [&] { return "parameters: two are called '" + name + "'"; });
  check(shape.rank() == (role == Role::vector ? 1 : 2), [&] {
    return "parameters: '" + name + "' is a " + name_of(role) + " of shape " + text(shape);
  });
  parameters_.push_back({std::move(name),
                         shape,
                         role,
                         mean,
                         deviation,
                         rounded || role != Role::vector,
                         0,
                         role == Role::matrix ? unit_ : 0,
                         0,
                         shape.rows(),
                         0,
                         {},
                         {}});
  return parameters_.back();
}

int64_t bank_begin(int64_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

Bank cut(const Bank& whole, const Cut& c) {
  Bank part = whole;
  part.count = c.members();
  part.rows = c.rows();
  part.first_row = whole.first_row + c.row;
  part.members = {whole.members.begin() + c.member, whole.members.begin() + c.member_end};
  for (Tensor* x : {&part.value, &part.gradient, &part.shadow}) {
    if (!*x) continue;
    check(c.members() <= 1 || c.rows() == whole.rows, "parameters: a cut whose rows do not touch");
    Tensor rows = x->view({whole.count * whole.rows, whole.cols});
    int64_t begin = c.member * whole.rows + c.row;
    *x = rows.slice(begin, begin + part.count * part.rows).view({part.count, part.rows, part.cols});
  }
  return part;
}

void Parameters::allocate(uint64_t seed, DType activations, Device device,
                          const std::function<Cut(const Bank&)>& kept) {
  check(banks_.empty(), "parameters: allocate() twice");
  DType truth = compute_type(activations);
  std::vector<Parameter*> order;
  for (Parameter& p : parameters_) order.push_back(&p);
  auto key = [](const Parameter* p) {
    return std::tuple(p->role, p->shape.rows(), p->shape.cols(), p->qkv_heads);
  };
  std::stable_sort(order.begin(), order.end(), [&](auto* a, auto* b) { return key(a) < key(b); });

  int64_t size = 0;
  std::vector<int64_t> offsets;             // of the banks
  std::vector<std::vector<Parameter*>> of;  // their members
  for (size_t i = 0; i < order.size();) {
    const Parameter& first = *order[i];
    of.emplace_back();
    Bank bank{"", first.role, 0, first.shape.rows(), first.shape.cols(), {}, {}, {}, {}};
    bank.name = std::string(name_of(bank.role)) + " " + std::to_string(bank.rows) + "x" +
                std::to_string(bank.cols);
    for (; i < order.size() && key(order[i]) == key(&first); i++) {
      bank.members.push_back(order[i]);
      of.back().push_back(order[i]);
    }
    bank.count = int64_t(bank.members.size());
    whole_banks_.push_back(bank);
    Cut c = kept ? kept(bank) : Cut{0, bank.count, 0, bank.rows};
    size = bank_begin(size);
    offsets.push_back(size);
    for (int64_t k = 0; k < bank.count; k++) {
      Parameter& p = *of.back()[size_t(k)];
      bool here = k >= c.member && k < c.member_end;
      p.first_row = here ? c.row : 0;
      p.rows = here ? c.rows() : 0;
      p.offset = size;
      size += p.rows * bank.cols;
    }
    banks_.push_back(cut(bank, c));
  }
  values_ = Tensor::zeros({size}, truth, device);
  gradients_ = Tensor::zeros({size}, truth, device);
  if (activations == DType::bf16) shadow_ = Tensor({size}, DType::bf16, device);
  for (size_t i = 0; i < banks_.size(); i++) {
    Bank& bank = banks_[i];
    Shape shape{bank.count, bank.rows, bank.cols};
    auto view = [&](const Tensor& flat) {
      return flat.slice(offsets[i], offsets[i] + shape.numel()).view(shape);
    };
    bank.value = view(values_);
    bank.gradient = view(gradients_);
    if (shadow_) bank.shadow = view(shadow_);
    if (kept) add_wholes(i, of[i]);
  }
  fill(seed);
  for (Parameter& p : parameters_) {
    if (!kept) p.var = Var::leaf(shadow_ && p.rounded ? shadow(p) : value(p), gradient(p));
  }
  refresh_shadow();
}

void Parameters::add_wholes(size_t index, const std::vector<Parameter*>& of) {
  const Bank& bank = whole_banks_[index];
  DType truth = values_.dtype();
  bool vectors = bank.role == Role::vector;  // some are used as they are, some rounded
  for (int64_t k = 0; k < bank.count;) {
    int64_t members = bank.members[0]->unit ? 1 : bank.count;
    Shape shape{members, bank.rows, bank.cols};
    DType type = shadow_ && !vectors ? DType::bf16 : truth;
    Whole whole{
        bank.members[size_t(k)]->unit,          index, k, Tensor(shape, type, values_.device()),
        Tensor(shape, truth, values_.device()), {}};
    for (int64_t j = 0; j < members; j++) {
      Parameter& p = *of[size_t(k + j)];
      Tensor used = whole.used.slice(j, j + 1).view(p.shape);
      if (shadow_ && vectors && p.rounded) {
        Tensor rounded(p.shape, DType::bf16, values_.device());
        whole.roundings.push_back({used, rounded});
        used = rounded;
      }
      p.var = Var::leaf(used, whole.gradient.slice(j, j + 1).view(p.shape));
    }
    whole.used.give_back_memory();
    whole.gradient.give_back_memory();
    wholes_.push_back(whole);
    k += members;
  }
}

// A kept row gets the numbers it would get if all were kept.
void Parameters::fill(uint64_t seed) {
  for (const Parameter& p : parameters_) {
    Tensor value = this->value(p);
    if (p.rows == 0) continue;
    if (p.deviation == 0) {
      ops::fill(value, p.mean);
    } else if (p.rows == p.shape.rows()) {
      ops::random_normal(seed, stream_of(p.name), p.mean, p.deviation, value);
    } else {
      Tensor all(p.shape, value.dtype(), value.device());
      ops::random_normal(seed, stream_of(p.name), p.mean, p.deviation, all);
      ops::copy(all.slice(p.first_row, p.first_row + p.rows), value);
    }
  }
}

void Parameters::enter(int unit) const {
  if (!events.begins) return;
  events.begins(unit, false);
  on_backward([this, unit] { events.ends(unit, true); });
}

void Parameters::leave(int unit) const {
  if (!events.begins) return;
  events.ends(unit, false);
  on_backward([this, unit] { events.begins(unit, true); });
}

const Parameter& Parameters::find(const std::string& name) const {
  for (const Parameter& p : parameters_) {
    if (p.name == name) return p;
  }
  throw Error("parameters: none is called '" + name + "'");
}

int64_t Parameters::count() const {
  int64_t n = 0;
  for (const Parameter& p : parameters_) n += p.shape.numel();
  return n;
}

void Parameters::begin_gradients() {
  for (Parameter& p : parameters_) {
    p.var.reset_gradient();
    if (p.largest_scores) ops::fill(p.largest_scores, -INFINITY);
  }
}

void Parameters::watch_scores() {
  Tensor of_weight;  // a bias is declared right after its weight
  for (Parameter& p : parameters_) {
    if (!p.qkv_heads) continue;
    if (p.role == Role::matrix) {
      of_weight = Tensor({p.qkv_heads}, values_.dtype(), values_.device());
      ops::fill(of_weight, -INFINITY);
    }
    p.largest_scores = of_weight;
  }
}

void Parameters::end_gradients() {
  for (const Parameter& p : parameters_) end_gradient(p);
}

void Parameters::end_gradients(int unit) {
  for (const Parameter& p : parameters_) {
    if (p.unit == unit) end_gradient(p);
  }
}

void Parameters::end_gradient(const Parameter& p) {
  // Where a share is kept, whoever keeps it adds gradients up.
  if (p.var.gradient() || !wholes_.empty()) return;
  Tensor g = gradient(p);
  ops::fill(g, 0);
}

void Parameters::refresh_shadow() {
  if (shadow_) ops::copy(values_, shadow_);
}

}  // namespace murmur
