// tensor/op.h - what happens around every operation: the device is that of its tensors, the time
// and the work are counted where somebody watches, an error gets the operation's name.
#pragma once

#include <initializer_list>
#include <vector>

#include "tensor/tensor.h"

namespace murmur {

// A destination that is either written or added to: that is how gradients of several uses of one
// value gather without zeroing and without extra adds.
struct Into {
  Tensor& tensor;
  bool accumulate = false;
};

// A number to multiply by, in two parts: `value` is known here, `by` lies on the device, so that
// what was computed there need not travel to the host and back. by: one number, or one for each of
// K equal parts of the tensor it is applied to (the matrices of a bank).
struct Factor {
  double value = 1;
  Tensor by = {};
  Factor(double value) : value(value) {}
  Factor(double value, Tensor by) : value(value), by(std::move(by)) {}
};

// Thrown by a library or a device, which do not know what they were called for.
struct DeviceError : Error {
  using Error::Error;
};

// What a call costs at least: floating-point operations of products, bytes to read and write.
struct Work {
  double flops = 0, bytes = 0;
};

// The tensors of one argument, each as often as it is read or written.
struct Touched {
  const Tensor* one = nullptr;
  const std::vector<Tensor>* many = nullptr;
  int times = 1;
  Touched(const Tensor& x) : one(&x) {}
  Touched(const std::vector<Tensor>& all) : many(&all) {}
  Touched(const Into& x) : one(&x.tensor), times(x.accumulate ? 2 : 1) {}
  Touched(const Factor& x) : one(&x.by) {}
  template <class Number>
  Touched(const Number&) {}
};

// What does not depend on the arguments' types.
class AnyOp {
 public:
  const char* name() const { return name_; }

 protected:
  constexpr explicit AnyOp(const char* name) : name_(name) {}
  // Throws where tensors lie on two devices, unless the operation moves them from one to the other.
  static Device device_of(std::initializer_list<Touched> arguments, bool crosses);
  static Work work_of(std::initializer_list<Touched> arguments);
  static bool watched(Device device);
  // A time that begins with the call of watch() and ends with that of done().
  static double watch();
  void done(Device device, double begin, const Work& work) const;
  // The exception at hand, with the name in front, and for a DeviceError the tensors.
  [[noreturn]] void rethrow(std::initializer_list<Touched> arguments) const;

 private:
  const char* name_;
};

// An operation of ops.h: called like the function that it is.
template <class Signature>
class Op;
template <class... A>
class Op<void(A...)> : public AnyOp {
 public:
  using Function = void(A...);
  // work: where it is not each tensor once. cuda: where one function is for both devices, and for
  // tensors on either.
  constexpr Op(const char* name, Function* cpu, Work (*work)(A...), Function* cuda = nullptr)
      : AnyOp(name), cpu_(cpu), cuda_(cuda), work_(work) {}
  void set_cuda(Function* cuda) const { cuda_ = cuda; }

  void operator()(A... a) const try {
    Device device = device_of({Touched(a)...}, cpu_ == cuda_);
    Function* f = device == Device::cpu ? cpu_ : cuda_;
    if (!watched(device)) return f(a...);
    Work work = work_ ? work_(a...) : work_of({Touched(a)...});
    double begin = watch();
    f(a...);
    done(device, begin, work);
  } catch (const Error&) {
    rethrow({Touched(a)...});
  }

 private:
  Function* cpu_;
  mutable Function* cuda_;
  Work (*work_)(A...);
};

}  // namespace murmur
