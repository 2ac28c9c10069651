// tensor/ops/rope.cpp - rotary position embedding (Su et al., 2021), halves form: the pair (x[j],
// x[j + D/2]) of a head of size D at time t turns by the angle t base^(-2j/D).
//
//   y1 = x1 cos - x2 sin        y2 = x2 cos + x1 sin        backward: the same with -sin
#include <string>

#include "tensor/kernel/launch.h"

namespace murmur::MURMUR_DEVICE {
namespace {

// A row is half a head, beside its other half. v passes through.
template <class C>
struct Rope {
  int heads;
  C direction;  // +1 turns, -1 turns back

  template <class Team, class T>
  KERNEL void operator()(const Team& team, Row r, const In<T>& x1, const In<T>& x2,
                         const Broadcast<C>& cosine, const Broadcast<C>& sine,
                         const Accumulate<T>& y1, const Accumulate<T>& y2) const {
    if (r.inner >= 2 * heads) {
      return team.each([](C a, C b, C& to1, C& to2) { to1 = a, to2 = b; }, x1, x2, y1, y2);
    }
    C way = direction;
    team.each(
        [=](C a, C b, C c, C s, C& to1, C& to2) {
          to1 = a * c - b * (way * s);
          to2 = b * c + a * (way * s);
        },
        x1, x2, cosine.in(), sine.in(), y1, y2);
  }
};

}  // namespace

void rope(int64_t heads, double direction, const Tensor& qkv, const Tensor& angles, Into y) {
  check_heads(heads, qkv);
  check_same(qkv, y.tensor);
  int64_t size = qkv.cols() / (3 * heads), half = size / 2;
  check(size % 2 == 0 && angles.cols() == size && qkv.shape()[-2] <= angles.rows(), [&] {
    return text(qkv) + " with angles " + text(angles) + " for heads of size " +
           std::to_string(size);
  });
  Extent e{qkv.rows() * 3 * heads, half, int(3 * heads)};
  dispatch_kernel(qkv.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    In<T> x{{qkv.data<T>(), size}};
    Accumulate<T> to{{y.tensor.data<T>(), size}, y.accumulate};
    Broadcast<C> cosine{{angles.data<C>(), size}, uint32_t(qkv.shape()[-2])};
    for_each_row(e, Rope<C>{int(heads), C(direction)}, x, x.from(half), cosine, cosine.from(half),
                 to, to.from(half));
  });
}

}  // namespace murmur::MURMUR_DEVICE
