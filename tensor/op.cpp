// tensor/op.cpp - what surrounds an operation, and the operations themselves with the work they do.
#include "tensor/op.h"

#include <omp.h>

#include <chrono>

#include "tensor/backend.h"
#include "tensor/ops.h"
#include "tensor/ops/functions.h"
#include "tensor/profile.h"

namespace murmur {
namespace {

double now_ms() {
  using namespace std::chrono;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

// Calls f(tensor, times) for the tensors that are there.
template <class F>
void each_tensor(std::initializer_list<Touched> arguments, const F& f) {
  for (const Touched& t : arguments) {
    if (t.one && *t.one) f(*t.one, t.times);
    if (t.many) {
      for (const Tensor& x : *t.many) f(x, t.times);
    }
  }
}

}  // namespace

Device AnyOp::device_of(std::initializer_list<Touched> arguments, bool crosses) {
  const Tensor* first = nullptr;
  Device device = Device::cpu;
  each_tensor(arguments, [&](const Tensor& x, int) {
    if (!first) first = &x;
    if (x.device() == Device::cuda) device = x.device();
    check(crosses || x.device() == first->device(),
          [&] { return text(*first) + " and " + text(x) + " lie on two devices"; });
  });
  return device;
}

Work AnyOp::work_of(std::initializer_list<Touched> arguments) {
  Work work;
  each_tensor(arguments,
              [&](const Tensor& x, int times) { work.bytes += times * double(x.bytes()); });
  return work;
}

bool AnyOp::watched(Device device) { return Profile::current(device) && !omp_in_parallel(); }

double AnyOp::watch() { return now_ms(); }

void AnyOp::done(Device device, double begin, const Work& work) const {
  backend(device).synchronize();
  OpUse& use = (*Profile::current(device))[name_];
  use.ms += now_ms() - begin;
  use.calls++;
  use.flops += work.flops;
  use.bytes += work.bytes;
}

void AnyOp::rethrow(std::initializer_list<Touched> arguments) const {
  std::string name = std::string(name_) + ": ";
  try {
    throw;
  } catch (const DeviceError& error) {
    std::string tensors;
    each_tensor(arguments,
                [&](const Tensor& x, int) { tensors += (tensors.empty() ? "" : ", ") + text(x); });
    throw Error(name + tensors + ": " + error.what());
  } catch (const InputError& error) {
    throw InputError(name + error.what());
  } catch (const Error& error) {
    throw Error(name + error.what());
  }
}

namespace {

// What is not each tensor once ------------------------------------------------------------------

Work bytes_of(std::initializer_list<const Tensor*> tensors) {
  Work work;
  for (const Tensor* x : tensors) work.bytes += *x ? double(x->bytes()) : 0;
  return work;
}

Work work_of_lerp(double, const Tensor& x, Tensor& y) { return bytes_of({&x, &y, &y}); }
Work work_of_apply_update(const Factor&, double, bool, const Tensor& d, Tensor& w, Tensor& shadow) {
  return bytes_of({&d, &w, &w, &shadow});
}
Work work_of_adam(const Tensor& g, Tensor& m, Tensor& v, Tensor& direction, double, double, double,
                  const Tensor&) {
  return bytes_of({&g, &m, &m, &v, &v, &direction});
}
Work work_of_adam_update(const Factor&, const Tensor& g, Tensor& m, Tensor& v, double, double,
                         double, const Tensor&, const Factor&, double, bool, Tensor& w,
                         Tensor& shadow) {
  return bytes_of({&g, &m, &m, &v, &v, &w, &w, &shadow});
}
Work work_of_momentum(const Tensor& g, Tensor& m, Tensor& u, double, double, double, double) {
  return bytes_of({&g, &m, &m, &u});
}
Work work_of_mix(const Tensor& x, const Tensor& own, const std::vector<Tensor>& theirs,
                 const std::vector<double>&, Tensor& y) {
  Work work = bytes_of({&x, &y});
  if (own.raw() != x.raw()) work.bytes += double(own.bytes());
  for (const Tensor& their : theirs) work.bytes += double(their.bytes());
  return work;
}
Work work_of_orthonormal_columns(const Tensor& x, Tensor& q) {
  Work work = bytes_of({&x, &q});
  work.flops = 4 * double(x.numel()) * double(x.cols());
  return work;
}
Work work_of_cross_entropy(Tensor& logits, const Tensor&, Tensor&, bool to_gradient, int64_t) {
  return {0, double(logits.bytes()) * (to_gradient ? 2 : 1)};
}
Work work_of_matmul(const Tensor& a, const Tensor& b, Into c, const MatmulForm& form) {
  Work work = bytes_of({&a, &b, &c.tensor, &form.plus, &form.activated, &form.slope_at});
  if (c.accumulate) work.bytes += double(c.tensor.bytes());
  double batch = a.shape().rank() == 3 && c.tensor.shape().rank() == 3 ? double(a.shape()[0]) : 1;
  double inner = form.transpose_a ? double(a.rows()) / batch : double(a.cols());
  work.flops = 2 * double(c.tensor.numel()) * inner;
  return work;
}
// `products` of T x T by D each, half of them masked away.
double attention_flops(const Tensor& qkv, double products) {
  double batch = double(qkv.shape()[0]), time = double(qkv.shape()[1]);
  return products * batch * time * time * double(qkv.cols()) / 3;
}
Work work_of_attention(int64_t, const Tensor& qkv, Tensor& y, Tensor&) {
  return {attention_flops(qkv, 2), bytes_of({&qkv, &y}).bytes};
}
Work work_of_attention_backward(int64_t, const Tensor& qkv, const Tensor& y, const Tensor&,
                                const Tensor& dy, Into dqkv) {
  return {attention_flops(qkv, 5), bytes_of({&qkv, &y, &dy, &dqkv.tensor}).bytes};
}
Work work_of_largest_scores(int64_t, const Tensor& qkv, Tensor&) {
  return {attention_flops(qkv, 1), double(qkv.bytes())};
}
Work work_of_gather(const Tensor&, const Tensor&, const Tensor&, Tensor& y) {
  return bytes_of({&y, &y});
}

}  // namespace

// What an operation costs where it is not each of its tensors once.
template <const auto& op>
constexpr std::nullptr_t work_of = nullptr;
template <>
constexpr auto work_of<ops::lerp> = work_of_lerp;
template <>
constexpr auto work_of<ops::apply_update> = work_of_apply_update;
template <>
constexpr auto work_of<ops::adam> = work_of_adam;
template <>
constexpr auto work_of<ops::adam_update> = work_of_adam_update;
template <>
constexpr auto work_of<ops::momentum> = work_of_momentum;
template <>
constexpr auto work_of<ops::mix> = work_of_mix;
template <>
constexpr auto work_of<ops::orthonormal_columns> = work_of_orthonormal_columns;
template <>
constexpr auto work_of<ops::cross_entropy> = work_of_cross_entropy;
template <>
constexpr auto work_of<ops::matmul> = work_of_matmul;
template <>
constexpr auto work_of<ops::attention> = work_of_attention;
template <>
constexpr auto work_of<ops::attention_backward> = work_of_attention_backward;
template <>
constexpr auto work_of<ops::largest_scores> = work_of_largest_scores;
template <>
constexpr auto work_of<ops::gather> = work_of_gather;

// cuda_backend() adds the GPU's functions.
#define OP(name) \
  constinit const decltype(ops::name) ops::name{#name, cpu::name, work_of<ops::name>};
#include "declared_ops.def"

namespace {

void copy_anywhere(const Tensor& from, Tensor& to) {
  check(from.shape() == to.shape(), [&] { return text(from) + " to " + text(to); });
  bool on_gpu = from.device() == Device::cuda || to.device() == Device::cuda;
  backend(on_gpu ? Device::cuda : Device::cpu).copy(from, to);
}

}  // namespace

constinit const Op<void(const Tensor&, Tensor&)> ops::copy{"copy", copy_anywhere, nullptr,
                                                           copy_anywhere};

}  // namespace murmur
