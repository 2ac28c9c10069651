// nn/parameter.cpp - the layout of the flat buffer and its first values.
#include "nn/parameter.h"

#include <algorithm>
#include <cmath>

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
                         0,
                         {},
                         {}});
  return parameters_.back();
}

void Parameters::allocate(uint64_t seed, DType activations, Device device) {
  check(banks_.empty(), "parameters: allocate() twice");
  DType truth = compute_type(activations);
  std::vector<Parameter*> order;
  for (Parameter& p : parameters_) order.push_back(&p);
  auto key = [](const Parameter* p) {
    return std::tuple(p->role, p->shape.rows(), p->shape.cols(), p->qkv_heads);
  };
  std::stable_sort(order.begin(), order.end(), [&](auto* a, auto* b) { return key(a) < key(b); });

  int64_t size = 0;
  for (size_t i = 0; i < order.size(); i++) {
    if (i == 0 || key(order[i]) != key(order[i - 1]))
      size = (size + kAlignment - 1) / kAlignment * kAlignment;
    order[i]->offset = size;
    size += order[i]->shape.numel();
  }
  values_ = Tensor::zeros({size}, truth, device);
  gradients_ = Tensor::zeros({size}, truth, device);
  if (activations == DType::bf16) shadow_ = Tensor({size}, DType::bf16, device);

  for (size_t i = 0; i < order.size();) {
    size_t end = i;
    while (end < order.size() && key(order[end]) == key(order[i])) end++;
    const Parameter& first = *order[i];
    Bank bank{"", first.role, int64_t(end - i), first.shape.rows(), first.shape.cols(), {}, {},
              {}, {}};
    bank.name = std::string(name_of(bank.role)) + " " + std::to_string(bank.rows) + "x" +
                std::to_string(bank.cols);
    Shape shape{bank.count, bank.rows, bank.cols};
    auto view = [&](const Tensor& flat) {
      return flat.slice(first.offset, first.offset + shape.numel()).view(shape);
    };
    bank.value = view(values_);
    bank.gradient = view(gradients_);
    if (shadow_) bank.shadow = view(shadow_);
    for (; i < end; i++) bank.members.push_back(order[i]);
    banks_.push_back(std::move(bank));
  }

  for (Parameter& p : parameters_) {
    Tensor value = this->value(p);
    if (p.deviation == 0) {
      engine(device).fill(value, p.mean);
    } else {
      engine(device).random_normal(seed, stream_of(p.name), p.mean, p.deviation, value);
    }
    Tensor used = shadow_ && p.rounded ? shadow(p) : value;
    p.var = Var::leaf(used, gradient(p));
  }
  refresh_shadow();
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
    if (p.largest_scores) engine(p.largest_scores.device()).fill(p.largest_scores, -INFINITY);
  }
}

void Parameters::watch_scores() {
  Tensor of_weight;  // a bias is declared right after its weight
  for (Parameter& p : parameters_) {
    if (!p.qkv_heads) continue;
    if (p.role == Role::matrix) {
      of_weight = Tensor({p.qkv_heads}, values_.dtype(), values_.device());
      engine(values_.device()).fill(of_weight, -INFINITY);
    }
    p.largest_scores = of_weight;
  }
}

void Parameters::end_gradients() {
  for (Parameter& p : parameters_) {
    if (p.var.gradient()) continue;
    Tensor g = gradient(p);
    engine(g.device()).fill(g, 0);
  }
}

void Parameters::refresh_shadow() {
  if (shadow_) engine(shadow_.device()).copy(values_, shadow_);
}

}  // namespace murmur
