// tests/tensor/edges_test.cpp - functions of one and two numbers where fp32 ends: over its whole
// range against long double, one by one and in vector lanes.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "tensor/scalar.h"

namespace murmur {
// What the operations of ops.def call, exactly; declared before them.
inline long double exp_of(long double x) { return std::exp(x); }
inline long double tanh_of(long double x) { return std::tanh(x); }
inline long double sqrt_of(long double x) { return std::sqrt(x); }
inline long double log_of(long double x) { return std::log(x); }
}  // namespace murmur

#include "elementwise_ops.h"  // made by CMake: the formula of every row
#include "tensor/elementwise.h"
#include "tensor/formula.h"
#include "tensor/ops.h"
#include "tests/tensor/edges.h"

using namespace murmur;

namespace {

// Bit patterns all over fp32, a fine grid where exponentials live, and every float around the
// places at which something ends or changes.
const std::vector<double>& numbers() {
  static const std::vector<double> all = [] {
    std::vector<double> x;
    for (uint64_t bits = 0; bits < uint64_t(1) << 32; bits += 300007) {
      float v = bit_cast<float>(uint32_t(bits));
      if (std::isfinite(v)) x.push_back(v);
    }
    for (double v = -110; v < 110; v += 1.0 / 32) x.push_back(v);
    for (float v : {-103.97f, -87.3365f, -87.3f, -44.36f, -10.06f, 0.25f, 1.f, 44.36f, 88.3762f,
                    88.7f, 88.7228f, 89.f}) {
      float at = v * (1 - 50 * 0x1p-23f);
      for (int i = 0; i < 100; i++) x.push_back(at = std::nextafter(at, 200.f));
    }
    return x;
  }();
  return all;
}

// |got - exact| in units of the last place of `exact`, or of `least` where it is smaller. Overflow
// happens at 2^128; of what is below `tiny` nothing is asked but to be as small.
double ulps(double got, long double exact, double least, double tiny) {
  if (std::isnan(exact) || std::isnan(got)) return std::isnan(exact) && std::isnan(got) ? 0 : 1e30;
  constexpr long double kTop = 0x1p128L;
  auto in_range = [=](long double v) { return std::min(std::max(v, -kTop), kTop); };
  long double a = in_range(got), b = in_range(exact);
  if (std::fabs(b) < tiny) return std::fabs(a) <= tiny ? 0 : 1e30;
  int exponent = std::min(std::ilogb(std::max(std::fabs(b), (long double)(least))), 127);
  return double(std::fabs(a - b) / std::ldexp(1.0L, exponent - 23));
}

constexpr double kLeast = 0x1p-126;  // the least normal number
// Where the exponentials within an operation end, what follows from them may be this large.
constexpr double kTiny = 0x1p-118;

// Of formulas that have one: this, which every type holds exactly.
constexpr double kConstant = 0.25;
template <class Op>
struct Formula {
  template <class F>
  static F value(F x) {
    return value_of<Op>(x, F(kConstant));
  }
  template <class F>
  static F derivative(F x) {
    return derivative_of<Op>(x, F(kConstant));
  }
};

struct Worst {
  double error = 0, at = 0;
  void see(double e, double x) {
    if (e > error) error = e, at = x;
  }
};

void check_within(const std::string& what, const Worst& worst, double bound) {
  CAPTURE(what);
  CAPTURE(worst.at);
  CHECK(worst.error <= bound);
}

// Rows whose values keep their digits however small they are, and how many units of the last place
// they may be off: tanh by a difference near 1/4, gelu by the rounding of 2u, times up to 88. Other
// rows, and all derivatives, which may pass through 0, are given 10 units, counted from 1/16 on.
const std::map<std::string, double> kExact = {
    {"exp", 1},     {"log", 1},  {"sqrt", 0.5},       {"square", 0.5}, {"reciprocal", 0.5},
    {"abs", 0},     {"sign", 0}, {"leaky_relu", 0.5}, {"tanh", 6},     {"sigmoid", 3},
    {"relu2", 0.5}, {"silu", 3}, {"gelu", 250},
};

template <class Op>
void check_unary(Unary op, const std::string& name) {
  op.constant = kConstant;
  const std::vector<double>& x = numbers();
  Shape shape{int64_t(x.size())};
  Tensor in = Tensor::of(x, shape), ones(shape), y(shape), slope(shape);
  ops::fill(ones, 1);
  ops::map(op, in, y);
  ops::map_backward(op, in, ones, {slope});
  std::vector<double> values = to_vector(y), slopes = to_vector(slope);
  Worst value, lanes, derivative, slope_lanes;
  auto row = kExact.find(name);
  double least = row == kExact.end() ? 0x1p-4 : kLeast,
         bound = row == kExact.end() ? 10 : row->second;
  for (size_t i = 0; i < x.size(); i++) {
    auto exact = Op::value((long double)(x[i])), exact_slope = Op::derivative((long double)(x[i]));
    value.see(ulps(Op::value(float(x[i])), exact, least, kTiny), x[i]);
    lanes.see(ulps(values[i], exact, least, kTiny), x[i]);
    derivative.see(ulps(Op::derivative(float(x[i])), exact_slope, 0x1p-4, kTiny), x[i]);
    slope_lanes.see(ulps(slopes[i], exact_slope, 0x1p-4, kTiny), x[i]);
  }
  check_within(name, value, bound);
  check_within(name + " in lanes", lanes, bound);
  check_within(name + "'", derivative, 10);
  check_within(name + "' in lanes", slope_lanes, 10);
}

// What f tends to at the end of the numbers: there its growth is seen.
template <class F>
double limit(const F& f, long double sign) {
  long double far = f(sign * 1e500L), farther = f(sign * 1e1000L);
  if (std::fabs(farther) > std::fabs(far)) return std::copysign(INFINITY, double(farther));
  return std::fabs(farther) < std::fabs(far) ? 0 : double(farther);
}

}  // namespace

TEST_CASE(
    "exp, tanh, log and square root in fp32, over their whole range, in units of the last place") {
  Worst exponential, hyperbolic, root, logarithm;
  for (double v : numbers()) {
    float x = float(v);
    exponential.see(ulps(exp_of(x), std::exp((long double)(x)), kLeast, kLeast), x);
    hyperbolic.see(ulps(tanh_of(x), std::tanh((long double)(x)), kLeast, kLeast), x);
    root.see(ulps(sqrt_of(x), std::sqrt((long double)(x)), kLeast, kLeast), x);
    logarithm.see(ulps(log_of(x), std::log((long double)(x)), kLeast, kLeast), x);
  }
  check_within("exp", exponential, 1);
  check_within("tanh", hyperbolic, 6);
  check_within("sqrt", root, 0.5);
  check_within("log", logarithm, 1);
  CHECK(exp_of(88.7228317f) < INFINITY);  // the last float below ln 2^128
  CHECK(exp_of(88.7228394f) == INFINITY);
  CHECK(exp_of(0.f) == 1.f);
  for (float x : {-87.7f, -88.1f, -1e30f, -INFINITY}) CHECK(exp_of(x) == 0.f);
  CHECK(exp_of(INFINITY) == INFINITY);
  CHECK(std::isnan(exp_of(NAN)));
  CHECK(tanh_of(INFINITY) == 1.f);
  CHECK(tanh_of(-INFINITY) == -1.f);
  CHECK(std::isnan(tanh_of(NAN)));
}

TEST_CASE("every UNARY row and its derivative, over the whole range, alone and in vector lanes") {
#define UNARY(name, Functor, low, high, summary) check_unary<Formula<Functor>>(unary::name, #name);
#define BINARY(name, Functor, low, high, summary)
#define FUNCTION(name, summary)
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
}

TEST_CASE("every BINARY row and its derivatives, over the whole range") {
  const std::vector<double>& x = numbers();
  auto check_binary = [&](auto op, const std::string& name) {
    using Op = decltype(op);
    Worst value, left, right;
    for (size_t i = 0; i < x.size(); i++) {
      double y = x[(i * 7919 + 1) % x.size()];
      float a = float(x[i]), b = float(y);
      auto la = (long double)(a), lb = (long double)(b);
      value.see(ulps(Op::value(a, b), Op::value(la, lb), kLeast, kTiny), a);
      left.see(ulps(Op::left(a, b), Op::left(la, lb), kLeast, kTiny), a);
      right.see(ulps(Op::right(a, b), Op::right(la, lb), kLeast, kTiny), a);
    }
    check_within(name, value, 1);
    check_within(name + ", left derivative", left, 1);
    check_within(name + ", right derivative", right, 2);
  };
#define UNARY(name, Functor, low, high, summary)
#define BINARY(name, Functor, low, high, summary) check_binary(Functor{}, #name);
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
}

TEST_CASE("every UNARY row has its limits at the infinities and keeps NaN, in every type") {
  auto check_ends = [](auto op, Unary place, const std::string& name) {
    using Op = decltype(op);
    CAPTURE(name);
    place.constant = kConstant;
    auto value = [](long double x) { return Op::value(x); };
    auto slope = [](long double x) { return Op::derivative(x); };
    std::vector<double> want, want_slope;
    for (long double sign : {1.0L, -1.0L}) {
      want.push_back(limit(value, sign));
      want_slope.push_back(limit(slope, sign));
    }
    for (DType dtype : {DType::f32, DType::f64, DType::bf16}) {
      Tensor x = Tensor::of({INFINITY, -INFINITY, NAN}, {3}, dtype), ones({3}, dtype),
             y({3}, dtype);
      ops::fill(ones, 1);
      ops::map(place, x, y);
      std::vector<double> got = to_vector(y);
      ops::map_backward(place, x, ones, {y});
      std::vector<double> got_slope = to_vector(y);
      for (size_t i : {0, 1}) {
        CAPTURE(i);
        CHECK((got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]))));
        CHECK((got_slope[i] == want_slope[i] ||
               (std::isnan(got_slope[i]) && std::isnan(want_slope[i]))));
      }
      CHECK(std::isnan(got[2]));
      // A derivative that is the same everywhere needs no x.
      CHECK((std::isnan(got_slope[2]) || slope(-2) == slope(3)));
    }
  };
#define UNARY(name, Functor, low, high, summary) check_ends(Formula<Functor>{}, unary::name, #name);
#define BINARY(name, Functor, low, high, summary)
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
#undef FUNCTION
}

TEST_CASE("the slope of |x| is 0 at 0, and |-0| is 0") {
  CHECK(Abs::derivative(0.f) == 0.f);
  CHECK(Abs::derivative(-0.f) == 0.f);
  CHECK(!std::signbit(Abs::value(-0.f)));
}

TEST_CASE("the CPU engine neither swallows NaN nor loses what is large") {
  check_engine_edges(Device::cpu);
}
