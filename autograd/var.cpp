// autograd/var.cpp - gradient slots, recording, and the one reverse walk.
#include "autograd/var.h"

#include "tensor/ops.h"

namespace murmur {
namespace {

thread_local Tape* current_tape = nullptr;

std::shared_ptr<GradientSlot> slot_for(const Tensor& value) {
  auto slot = std::make_shared<GradientSlot>();
  slot->shape = value.shape();
  slot->dtype = value.dtype();
  slot->device = value.device();
  return slot;
}

}  // namespace

void Sink::make_room() const {
  GradientSlot& slot = *slot_;
  if (!slot.gradient) {
    slot.gradient = Tensor(slot.shape, slot.dtype, slot.device);
  } else if (slot.written && !slot.fixed && !slot.gradient.unique()) {
    Tensor own(slot.shape, slot.dtype, slot.device);  // shared by pass(): add to a copy
    ops::copy(slot.gradient, own);
    slot.gradient = own;
  }
}

void Sink::pass(const Tensor& gradient) const {
  if (!slot_) return;
  GradientSlot& slot = *slot_;
  if (slot.written || slot.fixed) {
    give([&](Into into) { ops::scale(1, gradient.view(slot.shape), into); });
  } else {
    slot.gradient = gradient.shape() == slot.shape ? gradient : gradient.view(slot.shape);
    slot.written = true;
  }
}

Var Var::leaf(Tensor value, Tensor gradient) {
  Var v(std::move(value));
  v.slot_ = slot_for(v.value_);
  if (gradient) {
    check(gradient.shape() == v.shape(), "autograd: a parameter and its gradient differ in shape");
    v.slot_->gradient = std::move(gradient);
    v.slot_->fixed = true;
  }
  return v;
}

void Var::reset_gradient() const {
  if (!slot_) return;
  slot_->written = false;
  if (!slot_->fixed) slot_->gradient = Tensor();
}

Tape::Tape() : outer_(current_tape) { current_tape = this; }
Tape::~Tape() { current_tape = outer_; }

NoGrad::NoGrad() : suspended_(current_tape) { current_tape = nullptr; }
NoGrad::~NoGrad() { current_tape = suspended_; }

bool recording(std::initializer_list<Var> inputs) {
  if (!current_tape) return false;
  for (const Var& input : inputs) {
    if (input.wants_gradient()) return true;
  }
  return false;
}

Var record(Tensor value, std::initializer_list<Var> inputs,
           std::function<void(const Tensor&)> backward) {
  if (!recording(inputs)) return Var(std::move(value));
  return record_many({std::move(value)}, [backward = std::move(backward)](std::span<Tensor> dy) {
    backward(dy[0]);
  })[0];
}

std::vector<Var> record_many(std::vector<Tensor> values,
                             std::function<void(std::span<Tensor>)> backward) {
  std::vector<Var> results;
  Tape::Node node;
  for (Tensor& value : values) {
    Var result(std::move(value));
    result.slot_ = slot_for(result.value_);
    node.outputs.push_back(result.slot_);
    results.push_back(std::move(result));
  }
  node.backward = std::move(backward);
  current_tape->nodes_.push_back(std::move(node));
  return results;
}

void on_backward(std::function<void()> visit) {
  if (current_tape)
    current_tape->nodes_.push_back(
        {{}, [visit = std::move(visit)](std::span<Tensor>) { visit(); }});
}

void Tape::backward(const Var& result, const Tensor& seed) {
  check(current_tape == this, "backward: another tape or NoGrad is active");
  check(result.wants_gradient(),
        "backward: the result was not recorded; is a Tape alive and a leaf among its inputs?");
  check(seed || result.value().numel() == 1, [&] {
    return "backward: the result is " + text(result.value()) +
           ", not a scalar; pass the gradient to start from";
  });
  Tensor start = seed;
  if (!start) {
    start = Tensor(result.shape(), result.value().dtype(), result.value().device());
    ops::fill(start, 1);
  }
  result.sink().pass(start);
  start = Tensor();
  NoGrad quiet;
  while (!nodes_.empty()) {
    Node node = std::move(nodes_.back());
    nodes_.pop_back();
    std::vector<Tensor> gradients;
    bool any = node.outputs.empty();  // a visit
    for (auto& slot : node.outputs) {
      gradients.push_back(slot->written ? slot->gradient : Tensor());
      any = any || slot->written;
      slot->gradient = Tensor();
      slot->written = false;
    }
    if (any) node.backward(gradients);
  }
}

}  // namespace murmur
