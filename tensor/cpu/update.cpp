// tensor/cpu/update.cpp - the passes over parameters and optimizer state.
#include <algorithm>
#include <cmath>

#include "tensor/backend.h"
#include "tensor/cpu/factor.h"
#include "tensor/cpu/over_runs.h"
#include "tensor/ops/functions.h"

namespace murmur::cpu {

void apply_update(const Factor& rate, double decay, bool cautious, const Tensor& d, Tensor& w,
                  Tensor& shadow) {
  check_same(d, w);
  dispatch(w.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    double r = value_of(rate);
    C a = C(r), b = C(1 - r * decay), otherwise = cautious ? C(1) : b;
    over_runs_of<T>(
        [=](int64_t n, const T* direction, T* out) {
#pragma omp simd
          for (int64_t i = 0; i < n; i++) {
            C move = C(direction[i]), value = C(out[i]);
            out[i] = T((move * value >= 0 ? b : otherwise) * value - a * move);
          }
        },
        d, w);
  });
  if (shadow) cpu_backend().copy(w, shadow);
}

void adam(const Tensor& gradient, Tensor& m, Tensor& v, Tensor& direction, double beta1,
          double beta2, double eps, const Tensor& step) {
  check_same(gradient, m);
  check_same(gradient, v);
  check_same(gradient, direction);
  double t = step.data<double>()[0];
  double correction1 = 1 - std::pow(beta1, t), correction2 = 1 - std::pow(beta2, t);
  dispatch(gradient.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    C b1 = C(beta1), a1 = C(1 - beta1), b2 = C(beta2), a2 = C(1 - beta2);
    C c1 = C(1 / correction1), c2 = C(1 / correction2), e = C(eps);
    over_runs_of<T>(
        [=](int64_t n, const T* g, T* first, T* second, T* d) {
#pragma omp simd
          for (int64_t i = 0; i < n; i++) {
            C gi = C(g[i]);
            C mi = b1 * C(first[i]) + a1 * gi;
            C vi = b2 * C(second[i]) + a2 * gi * gi;
            first[i] = T(mi);
            second[i] = T(vi);
            d[i] = T(mi * c1 / (sqrt_of(vi * c2) + e));
          }
        },
        gradient, m, v, direction);
  });
}

void momentum(const Tensor& gradient, Tensor& m, Tensor& u, double decay, double weight,
              double from_m, double from_g) {
  check_same(gradient, m);
  check(u.shape() == m.shape(), [&] { return text(m) + " into " + text(u); });
  dispatch(m.dtype(), [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    C a = C(decay), b = C(weight), p = C(from_m), q = C(from_g);
    dispatch(u.dtype(), [&](auto out_type) {
      using U = decltype(out_type);
      over_runs(
          [=](int64_t n, const T* g, T* moment, U* out) {
#pragma omp simd
            for (int64_t i = 0; i < n; i++) {
              C gi = C(g[i]), mi = a * C(moment[i]) + b * gi;
              moment[i] = T(mi);
              out[i] = U(Compute<U>(p * mi + q * gi));
            }
          },
          Strip<T>{gradient}, Strip<T>{m}, Strip<U>{u});
    });
  });
}

void clip_factor(const Tensor& squares, double limit, bool exactly, Tensor& factor) {
  double norm = std::sqrt(value_of({1, squares}));
  double f = limit / (norm + 1e-6);
  f = f > 1 ? 1 : f;  // NaN stays
  fill(factor, !exactly ? f : norm == 0 ? 0 : limit / norm);
}

// Divides in place only what is close to the ends of what fp32 can hold.
void normalizers(Tensor& bank, double eps, Tensor& f, Tensor& squared) {
  int64_t count = bank.shape()[0];
  Tensor squares({count}, DType::f64);
  sum_of_squares(bank, squares);
  for (int64_t k = 0; k < count; k++) {
    double factor = 1 / (std::sqrt(squares.data<double>()[k]) + eps);
    if ((factor > 0 && factor < 1e-12) || factor > 1e12) {  // 0: infinite, and stays so
      Tensor x = bank.slice(k, k + 1);
      // By powers of two, which change no digit, in halves: the whole may be more than fp32 holds.
      int exponent = std::ilogb(std::min(factor, 1e300));
      scale(std::ldexp(1.0, exponent / 2), x, {x});
      scale(std::ldexp(1.0, exponent - exponent / 2), x, {x});
      factor = std::ldexp(factor, -exponent);
    }
    Tensor own = f.slice(k, k + 1), square = squared.slice(k, k + 1);
    fill(own, factor);
    fill(square, factor * factor);
  }
}

}  // namespace murmur::cpu
