// tests/optim/training.h - some parameters, an optimizer, and gradients made up for them.
#pragma once

#include <doctest/doctest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <optional>

#include "optim/registry.h"
#include "optim/update.h"
#include "tensor/ops.h"

namespace murmur {

// One thread, for problems too small to share; what was set before comes back.
struct Threads {
  int before = omp_get_max_threads();
  explicit Threads(int count) { omp_set_num_threads(count); }
  ~Threads() { omp_set_num_threads(before); }
};

struct Declared {
  std::string name;
  Shape shape;
  Role role = Role::matrix;
};

using Settings = std::map<std::string, std::string>;

inline NamedOptimizer configured(const std::string& name, const Settings& settings = {}) {
  std::shared_ptr<Optimizer> optimizer = make_optimizer(name);
  configure(*optimizer, name, settings);
  return {name, optimizer};
}

// Some parameters and the optimizer that moves all of them.
struct Training {
  Parameters parameters;
  std::unique_ptr<Update> update;

  Training(const std::vector<Declared>& declared, const NamedOptimizer& use, double clip = 0,
           DType dtype = DType::f32) {
    std::vector<Route> routes;
    for (const Declared& d : declared) {
      parameters.add(d.name, d.shape, d.role, 0.5);
      bool there = false;
      for (const Route& route : routes) there = there || route.role == d.role;
      if (!there) routes.push_back({d.role, use});
    }
    parameters.allocate(3, dtype);
    update = std::make_unique<Update>(parameters, routes, clip);
  }
  // The gradient of `step`: normal numbers, a function of step and parameter name.
  void random_gradients(int64_t step, double size = 1) {
    for (const Parameter& p : parameters.all()) {
      Tensor g = parameters.gradient(p);
      ops::random_normal(uint64_t(step), std::hash<std::string>()(p.name), 0, size, g);
    }
  }
  void zero_gradients() { ops::fill(parameters.gradients(), 0); }
  void steps(int64_t first, int64_t last) {
    for (int64_t step = first; step <= last; step++) {
      random_gradients(step);
      update->step(step, 1);
    }
  }
};

inline const std::vector<Declared> kMatrices = {{"a", {6, 4}}, {"b", {6, 4}}, {"c", {4, 9}},
                                                {"d", {1, 7}}, {"e", {7, 1}}, {"f", {5, 5}}};

// Compared exactly, and not printed.
struct Bits {
  std::string bytes;
  bool operator==(const Bits&) const = default;
};

inline Bits bits_of(const Tensor& x) { return {{static_cast<const char*>(x.raw()), x.bytes()}}; }

inline Bits state_of(const Update& update) {
  Bits all;
  for (const auto& state : update.named_state())
    all.bytes += state.name + bits_of(state.tensor).bytes;
  return all;
}

inline bool all_finite(const Tensor& x) {
  for (double v : to_vector(x)) {
    if (!std::isfinite(v)) return false;
  }
  return true;
}

inline double distance(const Tensor& a, const std::vector<double>& b) {
  std::vector<double> v = to_vector(a);
  double worst = 0;
  for (size_t i = 0; i < v.size(); i++) worst = std::max(worst, std::fabs(v[i] - b[i]));
  return worst;
}

template <class Test>
void for_each_optimizer(Test test) {
  for (const OptimizerEntry& entry : optimizer_list()) {
    CAPTURE(entry.name);
    test(entry.name);
  }
}
inline std::string input_error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}
inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

}  // namespace murmur
