// tensor/ops/update.cpp - the passes over parameters and optimizer state.
//
//   apply_update   w = (1 - rate decay) w - rate d      shadow = w
//   adam           m = b1 m + (1 - b1) g                v = b2 v + (1 - b2) g^2
//                  d = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//   adam_update    both, of clip g: d is not kept
//   momentum       m = decay m + weight g               u = from_m m + from_g g
#include "tensor/kernel/launch.h"
#include "tensor/ops/functions.h"

namespace murmur::MURMUR_DEVICE {
namespace {

// What decay leaves of a weight.
struct Kept {
  DeviceScalar rate;
  double decay;
  KERNEL double operator()(Row r) const { return 1 - rate(r) * decay; }
};

struct Descend {
  bool cautious;
  template <class C, class S>
  KERNEL void operator()(C rate, C kept, C d, C& w, S& shadow) const {
    C otherwise = cautious ? C(1) : kept;
    w = (d * w >= 0 ? kept : otherwise) * w - rate * d;
    shadow = S(w);
  }
};

// 1 / (1 - beta^t), made by every thread of a GPU while its loads are under way.
template <class C>
struct BiasCorrection {
  double log_beta;
  const double* step;
  KERNEL C operator()(Row) const { return C(-1) / expm1_of(C(*step * log_beta)); }
};

template <class C>
struct Adam {
  C beta1, beta2, rest1, rest2, eps;
  Adam(double beta1, double beta2, double eps)
      : beta1(C(beta1)), beta2(C(beta2)), rest1(C(1 - beta1)), rest2(C(1 - beta2)), eps(C(eps)) {}
  KERNEL void operator()(C correction1, C correction2, C g, C& m, C& v, C& d) const {
    m = beta1 * m + rest1 * g;
    v = beta2 * v + rest2 * g * g;
    d = m * correction1 / (sqrt_of(v * correction2) + eps);
  }
};

template <class C>
struct AdamUpdate {
  Adam<C> adam;
  Descend descend;
  template <class S>
  KERNEL void operator()(C clip, C correction1, C correction2, C rate, C kept, C g, C& m, C& v,
                         C& w, S& shadow) const {
    C d;
    adam(correction1, correction2, clip * g, m, v, d);
    descend(rate, kept, d, w, shadow);
  }
};

template <class C>
struct Momentum {
  C decay, weight, from_m, from_g;
  template <class U>
  KERNEL void operator()(C g, C& m, U& u) const {
    m = decay * m + weight * g;
    u = U(from_m * m + from_g * g);
  }
};

template <class C>
auto correction(double beta, const Tensor& step) {
  return per_row<C>(BiasCorrection<C>{std::log(beta), step.data<double>()});
}

}  // namespace

void apply_update(const Factor& rate, double decay, bool cautious, const Tensor& d, Tensor& w,
                  Tensor& shadow) {
  check(d.shape() == w.shape() && w.dtype() == compute_type(d.dtype()) &&
            (!shadow || shadow.shape() == w.shape()),
        [&] { return text(d) + " moves " + text(w) + (shadow ? " and " + text(shadow) : ""); });
  Extent e = shadow ? extent_of(w, d, shadow) : extent_of(w, d);
  DeviceScalar by = device_scalar(rate, e);
  dispatch_kernel(d.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    for_each_element(e, Descend{cautious}, per_row<C>(by), per_row<C>(Kept{by, decay}), in<T>(d, e),
                     in_out<C>(w, e), optional_out<bf16>(shadow, e));
  });
}

void adam(const Tensor& gradient, Tensor& m, Tensor& v, Tensor& direction, double beta1,
          double beta2, double eps, const Tensor& step) {
  for (const Tensor* x : {&m, &v, &direction}) check_same(gradient, *x);
  Extent e = extent_of(gradient, m, v, direction);
  dispatch_compute(gradient.dtype(), [&](auto type) {
    using C = decltype(type);
    for_each_element(e, Adam<C>(beta1, beta2, eps), correction<C>(beta1, step),
                     correction<C>(beta2, step), in<C>(gradient, e), in_out<C>(m, e),
                     in_out<C>(v, e), out<C>(direction, e));
  });
}

void adam_update(const Factor& clip, const Tensor& gradient, Tensor& m, Tensor& v, double beta1,
                 double beta2, double eps, const Tensor& step, const Factor& rate, double decay,
                 bool cautious, Tensor& w, Tensor& shadow) {
  for (const Tensor* x : {&m, &v, &w}) check_same(gradient, *x);
  if (shadow) check_shape(w, shadow);
  Extent e = shadow ? extent_of(gradient, m, v, w, shadow) : extent_of(gradient, m, v, w);
  DeviceScalar of_gradient = device_scalar(clip, e), of_step = device_scalar(rate, e);
  dispatch_compute(gradient.dtype(), [&](auto type) {
    using C = decltype(type);
    for_each_element(e, AdamUpdate<C>{{beta1, beta2, eps}, {cautious}}, per_row<C>(of_gradient),
                     correction<C>(beta1, step), correction<C>(beta2, step), per_row<C>(of_step),
                     per_row<C>(Kept{of_step, decay}), in<C>(gradient, e), in_out<C>(m, e),
                     in_out<C>(v, e), in_out<C>(w, e), optional_out<bf16>(shadow, e));
  });
}

void momentum(const Tensor& gradient, Tensor& m, Tensor& u, double decay, double weight,
              double from_m, double from_g) {
  check_same(gradient, m);
  check_shape(m, u);
  Extent e = extent_of(gradient, m, u);
  dispatch_compute(m.dtype(), [&](auto type) {
    using C = decltype(type);
    dispatch_kernel(u.dtype(), [&](auto out_type) {
      for_each_element(e, Momentum<C>{C(decay), C(weight), C(from_m), C(from_g)},
                       in<C>(gradient, e), in_out<C>(m, e), out<decltype(out_type)>(u, e));
    });
  });
}

}  // namespace murmur::MURMUR_DEVICE
