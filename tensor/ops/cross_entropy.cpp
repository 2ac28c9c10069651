// tensor/ops/cross_entropy.cpp - negative log-likelihood of one target given a row of logits.
//
//   loss = log sum e^x - x[target]        dx = softmax(x) - onehot(target)
//
// The gradient takes the place of the logits: the row is in the cache, or on the chip, and no
// second row is needed.
#include <string>

#include "tensor/kernel/launch.h"

namespace murmur::MURMUR_DEVICE {
namespace {

template <class C>
struct CrossEntropy {
  const int32_t* targets;
  C* losses;
  bool to_gradient;
  int64_t vocabulary;

  // A target outside the vocabulary makes its loss NaN: a kernel can throw nothing.
  template <class Team, class T>
  KERNEL void operator()(const Team& team, Row r, const In<T>& x, const Out<T>& dx) const {
    int64_t target = targets[r.index];
    bool valid = target >= 0 && target < vocabulary;
    bool mine = valid ? team.owns(target) : team.leads();
    C wanted = mine && valid ? x.get(target) : C(NAN);  // before its place is taken
    auto row = team.hold(x);
    auto [m, s] = team.max_sum_exp(vocabulary, row);
    C top = m, scale = C(1) / s;
    if (mine) losses[r.index] = log_of(s) + (top - wanted);  // small, where an offset is large
    if (!to_gradient) return;
    team.each([=](C v, C& d) { d = fast_exp(v - top) * scale; }, row, dx);
    team.clear_from(vocabulary, dx);
    if (mine && valid) dx.put(target, fast_exp(wanted - top) * scale - C(1));
  }
};

}  // namespace

void cross_entropy(Tensor& logits, const Tensor& targets, Tensor& losses, bool to_gradient,
                   int64_t vocabulary) {
  check(targets.numel() == logits.rows() && losses.numel() == logits.rows() && vocabulary > 0 &&
            vocabulary <= logits.cols(),
        [&] {
          return "logits " + text(logits) + ", targets " + text(targets) + ", losses " +
                 text(losses) + ", a vocabulary of " + std::to_string(vocabulary);
        });
  for (int64_t r = 0; logits.device() == Device::cpu && r < logits.rows(); r++) {
    int32_t target = targets.data<int32_t>()[r];
    check(target >= 0 && target < vocabulary, [&] {
      return "target " + std::to_string(target) + " outside a vocabulary of " +
             std::to_string(vocabulary);
    });
  }
  Extent e = row_extent(logits);
  dispatch_kernel(logits.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    CrossEntropy<C> f{targets.data<int32_t>(), losses.data<C>(), to_gradient, vocabulary};
    for_each_row(e, f, in<T>(logits, e), out<T>(logits, e));
  });
}

}  // namespace murmur::MURMUR_DEVICE
