// autograd/var.h - a value and the place where its gradient gathers; the tape that orders the work.
//
//   Tape tape;                        // recording starts
//   Var loss = model(tokens);         // every function appends a node: outputs, and a closure
//   tape.backward(loss);              // the nodes in reverse, each released as soon as it has run
//
// A closure captures exactly the tensors its gradient needs: the capture list is the list of saved
// tensors. Without a living Tape (or under NoGrad) nothing is recorded and nothing is saved.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "tensor/op.h"  // Into

namespace murmur {

// Where the gradient of one value gathers. The first contribution writes, later ones add.
struct GradientSlot {
  Shape shape;
  DType dtype = DType::f32;
  Device device = Device::cpu;
  Tensor gradient;
  bool written = false;
  bool fixed = false;  // a parameter's: the tensor is given and stays
};

// A node's hold on the gradient slot of one of its inputs. Empty when nobody wants that gradient.
class Sink {
 public:
  Sink() = default;
  explicit Sink(std::shared_ptr<GradientSlot> slot) : slot_(std::move(slot)) {}

  explicit operator bool() const { return slot_ != nullptr; }

  // Calls kernel(Into), which writes or adds the contribution; does nothing where none is wanted.
  // Kernels that write piece by piece say with `complete` which piece is the last one.
  template <class Kernel>
  void give(const Kernel& kernel, bool complete = true) const {
    if (!slot_) return;
    make_room();
    kernel(Into{slot_->gradient, slot_->written});
    slot_->written = slot_->written || complete;
  }
  // Hands a finished gradient over: shared where it is the first contribution, added otherwise.
  void pass(const Tensor& gradient) const;

 private:
  void make_room() const;  // a tensor of our own to write or add to

  std::shared_ptr<GradientSlot> slot_;
};

class Var {
 public:
  Var() = default;
  Var(Tensor value) : value_(std::move(value)) {}  // a constant

  // A leaf whose gradient is wanted. With `gradient` given, it gathers there (a parameter).
  static Var leaf(Tensor value, Tensor gradient = {});

  explicit operator bool() const { return bool(value_); }
  const Tensor& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  bool wants_gradient() const { return slot_ != nullptr; }
  // After backward; an empty tensor where nothing arrived. Only leaves keep theirs.
  Tensor gradient() const { return slot_ && slot_->written ? slot_->gradient : Tensor(); }
  // Forgets the gradient: the next contribution writes again.
  void reset_gradient() const;
  Sink sink() const { return Sink(slot_); }

 private:
  friend class Tape;
  friend Var record(Tensor, std::initializer_list<Var>, std::function<void(const Tensor&)>);
  friend std::vector<Var> record_many(std::vector<Tensor>, std::function<void(std::span<Tensor>)>);

  Tensor value_;
  std::shared_ptr<GradientSlot> slot_;
};

// Recording lasts as long as the Tape lives. Tapes nest (activation checkpointing does that); each
// thread has its own.
class Tape {
 public:
  Tape();
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // Runs every node once, in reverse order of creation. `seed` is the gradient of the result,
  // of its shape; 1 for a scalar when left out. Error if `result` was not recorded here.
  void backward(const Var& result, const Tensor& seed = {});

  size_t size() const { return nodes_.size(); }

 private:
  friend std::vector<Var> record_many(std::vector<Tensor>, std::function<void(std::span<Tensor>)>);
  friend void on_backward(std::function<void()>);

  struct Node {
    std::vector<std::shared_ptr<GradientSlot>> outputs;
    std::function<void(std::span<Tensor>)> backward;
  };
  std::vector<Node> nodes_;
  Tape* outer_;
};

// Suspends recording while it lives.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;

 private:
  Tape* suspended_;
};

// True when a function of these inputs must be recorded.
bool recording(std::initializer_list<Var> inputs);

// The result of a differentiable function: records `backward` if recording(inputs), else a
// constant.
Var record(Tensor value, std::initializer_list<Var> inputs,
           std::function<void(const Tensor& dy)> backward);
// Calls `visit` when backward comes back to this point; never, where nothing is recorded.
void on_backward(std::function<void()> visit);
// Several results at once; the caller has asked recording(). A gradient that never came is empty;
// a node may move the others out and write into them.
std::vector<Var> record_many(std::vector<Tensor> values,
                             std::function<void(std::span<Tensor>)> backward);

}  // namespace murmur
