// tests/optim/optimizers_test.cpp - what every optimizer of the list promises, tried on each
// because it is listed; known answers for Muon; and what is shared: scales, schedules, routing,
// settings, clipping.
#include <doctest/doctest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <optional>

#include "optim/orthogonalize.h"
#include "optim/registry.h"
#include "optim/scale.h"
#include "optim/schedule.h"
#include "optim/update.h"

using namespace murmur;

namespace {

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

using Settings = std::vector<std::pair<std::string, std::string>>;

NamedOptimizer configured(const std::string& name, const Settings& settings = {}) {
  std::shared_ptr<Optimizer> optimizer = make_optimizer(name);
  for (const auto& [key, value] : settings)
    set_option(all_options(*optimizer), name + ".", key, value);
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
      engine(Device::cpu)
          .random_normal(uint64_t(step), std::hash<std::string>()(p.name), 0, size, g);
    }
  }
  void zero_gradients() { engine(Device::cpu).fill(parameters.gradients(), 0); }
  void steps(int64_t first, int64_t last) {
    for (int64_t step = first; step <= last; step++) {
      random_gradients(step);
      update->step(step, 1);
    }
  }
};

const std::vector<Declared> kMatrices = {{"a", {6, 4}}, {"b", {6, 4}}, {"c", {4, 9}},
                                         {"d", {1, 7}}, {"e", {7, 1}}, {"f", {5, 5}}};

// Compared exactly, and not printed.
struct Bits {
  std::string bytes;
  bool operator==(const Bits&) const = default;
};

Bits bits_of(const Tensor& x) { return {{static_cast<const char*>(x.raw()), x.bytes()}}; }

Bits state_of(const Update& update) {
  Bits all;
  for (const auto& state : update.named_state())
    all.bytes += state.name + bits_of(state.tensor).bytes;
  return all;
}

bool all_finite(const Tensor& x) {
  for (double v : to_vector(x)) {
    if (!std::isfinite(v)) return false;
  }
  return true;
}

double distance(const Tensor& a, const std::vector<double>& b) {
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
template <class Test>
void for_each_elementwise(Test test) {
  for_each_optimizer([&](const std::string& name) {
    if (make_optimizer(name)->elementwise()) test(name);
  });
}

std::string input_error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}
bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

}  // namespace

// ------------------------------------------------------------------------------ the contract

TEST_CASE("every optimizer solves least squares") {
  Threads one(1);
  // f(W) = 1/2 sum of h_j (W_ij - A_ij)^2: columns of different curvature.
  const int64_t m = 6, n = 4, steps = 400;
  const double h[] = {0.5, 1, 1.5, 2};
  for_each_optimizer([&](const std::string& name) {
    double best = 1;
    for (double factor : {1.0, 10.0, 100.0}) {  // defaults are for large models
      NamedOptimizer use = configured(name, {{"weight_decay", "0"}});
      use.optimizer->learning_rate *= factor;
      Training t({{"w", {m, n}}}, use, 0, DType::f64);
      Tensor a({m, n}, DType::f64);
      engine(Device::cpu).random_normal(5, 0, 0, 0.25, a);
      engine(Device::cpu).fill(t.parameters.values(), 0);
      double *w = t.parameters.banks()[0].value.data<double>(),
             *g = t.parameters.banks()[0].gradient.data<double>(), *target = a.data<double>();
      auto f = [&] {
        double sum = 0;
        for (int64_t i = 0; i < m * n; i++) {
          g[i] = h[i % n] * (w[i] - target[i]);
          sum += 0.5 * g[i] * (w[i] - target[i]);
        }
        return sum;
      };
      double begin = f();
      for (int64_t step = 1; step <= steps; step++) {
        if (!(f() < 1e6)) break;  // too fast
        t.update->step(step, 1 - double(step - 1) / double(steps));
      }
      best = std::min(best, f() / begin);
    }
    CHECK(best < 1e-4);
  });
}

TEST_CASE("every elementwise optimizer follows Rosenbrock's valley") {
  Threads one(1);
  // f(x, y) = (1 - x)^2 + 100 (y - x^2)^2, from (-1.2, 1), where it is 24.2
  for_each_elementwise([&](const std::string& name) {
    double best = 24.2;
    for (double factor : {0.001, 0.01, 0.1, 1.0, 10.0, 100.0}) {
      NamedOptimizer use = configured(name, {{"weight_decay", "0"}});
      use.optimizer->learning_rate *= factor;
      Training t({{"w", {2}, Role::vector}}, use, 10, DType::f64);
      double *w = t.parameters.values().data<double>(),
             *g = t.parameters.gradients().data<double>();
      w[0] = -1.2, w[1] = 1;
      const int64_t steps = 5000;
      for (int64_t step = 1; step <= steps && std::isfinite(w[0]); step++) {
        double x = w[0], y = w[1];
        g[0] = -2 * (1 - x) - 400 * x * (y - x * x);
        g[1] = 200 * (y - x * x);
        t.update->step(step, 1 - double(step - 1) / double(steps));
      }
      double f = std::pow(1 - w[0], 2) + 100 * std::pow(w[1] - w[0] * w[0], 2);
      if (std::isfinite(f)) best = std::min(best, f);
    }
    CHECK(best < 0.05);
  });
}

TEST_CASE("the same steps give the same bits, on any number of threads") {
  const std::vector<Declared> large = {
      {"a", {130, 120}}, {"b", {130, 120}}, {"c", {130, 120}}, {"d", {7, 300}}};
  for_each_optimizer([&](const std::string& name) {
    std::optional<std::pair<Bits, Bits>> first;
    for (int threads : {1, 1, 2, 3}) {
      CAPTURE(threads);
      Threads some(threads);
      Training t(large, configured(name), 1);
      t.steps(1, 3);
      std::pair<Bits, Bits> all{bits_of(t.parameters.values()), state_of(*t.update)};
      if (!first) first = all;
      CHECK((all == *first));
    }
  });
}

TEST_CASE("state that was taken out and put back goes on bit for bit") {
  Threads one(1);
  for_each_optimizer([&](const std::string& name) {
    Training whole(kMatrices, configured(name), 1);
    whole.steps(1, 10);
    Training before(kMatrices, configured(name), 1), after(kMatrices, configured(name), 1);
    before.steps(1, 5);
    const Engine& e = engine(Device::cpu);
    e.copy(before.parameters.values(), after.parameters.values());
    auto from = before.update->named_state(), to = after.update->named_state();
    REQUIRE(from.size() == to.size());
    for (size_t i = 0; i < from.size(); i++) {
      CHECK(from[i].name == to[i].name);
      e.copy(from[i].tensor, to[i].tensor);
    }
    after.steps(6, 10);
    CHECK(bits_of(after.parameters.values()) == bits_of(whole.parameters.values()));
    CHECK(state_of(*after.update) == state_of(*whole.update));
  });
}

TEST_CASE("a gradient is only read") {
  Threads one(1);
  for_each_optimizer([&](const std::string& name) {
    for (double clip : {0.0, 1.0, 1e6}) {
      Training t(kMatrices, configured(name), clip);
      for (int64_t step = 1; step <= 3; step++) {
        t.random_gradients(step);
        Bits before = bits_of(t.parameters.gradients());
        t.update->step(step, 1);
        CHECK(bits_of(t.parameters.gradients()) == before);
      }
    }
  });
}

TEST_CASE("a gradient of zero moves nothing, and in the end neither does what is remembered") {
  Threads one(1);
  for_each_optimizer([&](const std::string& name) {
    NamedOptimizer use = configured(name, {{"weight_decay", "0"}});
    Training t(kMatrices, use, 1);
    Bits start = bits_of(t.parameters.values());
    for (int64_t step = 1; step <= 5; step++) t.update->step(step, 1);
    CHECK(bits_of(t.parameters.values()) == start);

    t.steps(6, 10);
    CHECK(bits_of(t.parameters.values()) != start);
    t.zero_gradients();
    for (int64_t step = 11; step <= 3000; step++) t.update->step(step, 1);
    CHECK(all_finite(t.parameters.values()));
    std::vector<double> rest = to_vector(t.parameters.values());
    t.update->step(3001, 1);
    CHECK(distance(t.parameters.values(), rest) <= 1e-6 * use.optimizer->learning_rate);
  });
}

TEST_CASE("decay shrinks by 1 - lr decay where the gradient is zero, and only where it is asked") {
  Threads one(1);
  for_each_optimizer([&](const std::string& name) {
    NamedOptimizer use = configured(name, {{"lr", "0.25"}, {"weight_decay", "0.5"}});
    Training t({{"a", {3, 4}}, {"b", {5, 2}}}, use);
    std::vector<double> expected = to_vector(t.parameters.values());
    for (double& v : expected) v *= 1 - 0.25 * 0.5 * 0.5;
    t.update->step(1, 0.5);
    CHECK(distance(t.parameters.values(), expected) < 1e-7);

    Update spared(t.parameters, {{Role::matrix, use, 2, false}}, 0);
    Bits before = bits_of(t.parameters.values());
    spared.step(1, 1);
    CHECK(bits_of(t.parameters.values()) == before);
  });
}

TEST_CASE("a gradient that is not finite is an error that names the parameter, and moves nothing") {
  Threads one(1);
  for_each_optimizer([&](const std::string& name) {
    for (double bad : {NAN, INFINITY, -INFINITY}) {
      for (const Declared& where : kMatrices) {
        Training t(kMatrices, configured(name), 1);
        t.steps(1, 2);
        Bits values = bits_of(t.parameters.values()), state = state_of(*t.update);
        t.random_gradients(3);
        Tensor g = t.parameters.gradient(t.parameters.find(where.name));
        g.data<float>()[g.numel() - 1] = float(bad);
        std::string message;
        try {
          t.update->step(3, 1);
        } catch (const Error& error) {
          message = error.what();
        }
        CAPTURE(message);
        CHECK(contains(message, "'" + where.name + "'"));
        CHECK(contains(message, "step 3"));
        CHECK(bits_of(t.parameters.values()) == values);
        CHECK(state_of(*t.update) == state);
      }
    }
  });
}

TEST_CASE("a parameter does not notice what else is in its bank") {
  Threads one(1);
  for_each_optimizer([&](const std::string& name) {
    const std::vector<Declared> three = {{"a", {6, 10}}, {"b", {6, 10}}, {"c", {6, 10}}};
    Training together(three, configured(name));
    REQUIRE(together.parameters.banks().size() == 1);
    together.steps(1, 4);
    for (const Declared& d : three) {
      CAPTURE(d.name);
      Training alone({d}, configured(name));
      alone.steps(1, 4);
      const Parameter& p = together.parameters.find(d.name);
      CHECK(distance(together.parameters.value(p), to_vector(alone.parameters.values())) == 0);
    }
  });
}

TEST_CASE("state is what was declared: names, shapes, bytes, zeros at the start") {
  for_each_optimizer([&](const std::string& name) {
    for (DType dtype : {DType::f32, DType::f64, DType::bf16}) {
      NamedOptimizer use = configured(name);
      Training t(kMatrices, use, 0, dtype);
      size_t bytes = 0, tensors = 0;
      for (const Bank& bank : t.parameters.banks()) {
        for (const StateShape& s : use.optimizer->state(bank)) {
          CHECK(s.shape[0] == bank.count);
          bytes += size_t(s.shape.numel()) * (dtype == DType::f64 ? 8 : 4);
          tensors += size_t(bank.count);
        }
      }
      CHECK(size_t(t.update->state_bytes()) == bytes);
      auto state = t.update->named_state();
      CHECK(state.size() == tensors);
      for (const auto& s : state) {
        bytes -= s.tensor.bytes();
        for (double v : to_vector(s.tensor)) CHECK(v == 0);
      }
      CHECK(bytes == 0);
    }
  });
}

TEST_CASE("an elementwise optimizer says the same about slices as about the whole") {
  for_each_elementwise([&](const std::string& name) {
    NamedOptimizer use = configured(name, {{"weight_decay", "0.1"}});
    Training t({{"w", {300, 301}}}, use);  // nearly three slices
    Bank& bank = t.parameters.banks()[0];
    Tensor value(bank.value.shape()), direction(bank.value.shape());
    State state;
    for (const StateShape& s : use.optimizer->state(bank)) state[s.name] = Tensor::zeros(s.shape);
    const Engine& e = engine(Device::cpu);
    e.copy(bank.value, value);
    double lr = use.optimizer->learning_rate;
    for (int64_t step = 1; step <= 3; step++) {
      t.steps(step, step);
      Tensor number = Tensor::of({double(step)}, {1}, DType::f64), none;
      use.optimizer->direction(bank, bank.gradient, state, number, direction);
      e.descend(lr, 0.1, direction, value, none);
    }
    CHECK(bits_of(bank.value) == bits_of(value));
  });
}

TEST_CASE("the bf16 shadow follows every update") {
  for_each_optimizer([&](const std::string& name) {
    Training t(kMatrices, configured(name), 1, DType::bf16);
    t.steps(1, 2);
    for (const Bank& bank : t.parameters.banks()) {
      Tensor rounded(bank.value.shape(), DType::bf16);
      engine(Device::cpu).copy(bank.value, rounded);
      CHECK(bits_of(bank.shadow) == bits_of(rounded));
    }
  });
}

// ------------------------------------------------------------------------------ known answers

TEST_CASE("two steps by hand: SGD with momentum, and AdamW") {
  auto two_steps = [](const std::string& name, const Settings& settings) {
    Training t({{"w", {1, 1}}}, configured(name, settings), 0, DType::f64);
    t.parameters.values().data<double>()[0] = 1;
    for (int64_t step : {1, 2}) {
      t.parameters.gradients().data<double>()[0] = step == 1 ? 2 : -1;
      t.update->step(step, 1);
    }
    return t.parameters.values().data<double>()[0];
  };
  // m = 2, then 0.5 * 2 - 1 = 0
  CHECK(two_steps("sgd", {{"lr", "0.1"}, {"momentum", "0.5"}}) == doctest::Approx(1 - 0.2 - 0.0));
  // directions 2 + 0.5 * 2 = 3, then -1 + 0.5 * 0
  CHECK(two_steps("sgd", {{"lr", "0.1"}, {"momentum", "0.5"}, {"nesterov", "true"}}) ==
        doctest::Approx(1 - 0.3 + 0.1));
  // m = 1, v = 1, unbiased 2, 4: direction 1. Then m = 0, v = 0.75 + 0.25 = 1: direction 0.
  CHECK(two_steps("adamw", {{"lr", "0.1"},
                            {"beta1", "0.5"},
                            {"beta2", "0.75"},
                            {"eps", "0"},
                            {"weight_decay", "0.5"}}) ==
        doctest::Approx((0.95 - 0.1) * 0.95).epsilon(1e-12));
}

TEST_CASE("two Muon steps on a 3 x 4 matrix") {
  Training t({{"w", {3, 4}}},
             configured("muon", {{"lr", "0.02"},
                                 {"momentum", "0.95"},
                                 {"nesterov", "true"},
                                 {"weight_decay", "0.01"},
                                 {"scale", "original"}}),
             0, DType::f64);
  const std::vector<double> w0 = {.1, -.2, .3, .4, .5, -.6, .7, -.8, -.9, 1, -1.1, 1.2},
                            g1 = {1, 2, 3, 4, 0, -1, 2, 1, 2, 0, -1, 3},
                            g2 = {0, 1, -1, 2, 1, 1, 0, -2, 3, -1, 1, 0},
                            w2 = {.096052210313,  -.218817021704, .285595332323,   .374867142374,
                                  .496664895147,  -.596123784957, .680463837087,   -.793993386688,
                                  -.926436133631, 1.007742135506, -1.088933655298, 1.179608766728};
  Bank& bank = t.parameters.banks()[0];
  std::copy(w0.begin(), w0.end(), bank.value.data<double>());
  for (int64_t step : {1, 2}) {
    const auto& g = step == 1 ? g1 : g2;
    std::copy(g.begin(), g.end(), bank.gradient.data<double>());
    t.update->step(step, 1);
  }
  CHECK(distance(bank.value, w2) < 1e-9);
}

TEST_CASE("Newton-Schulz maps singular values as its polynomial does") {
  const std::pair<double, double> map[] = {
      {1e-4, .048473}, {1e-3, .470544}, {1e-2, .698917}, {.05, .758120}, {.1, .712120},
      {.3, 1.079592},  {.5, .765439},   {.7, 1.120323},  {.9, .682011},  {1.0, .696436}};
  for (auto [sigma, expected] : map) {
    CAPTURE(sigma);
    double rest = std::sqrt(1 - sigma * sigma);  // so that the matrix has norm 1
    Tensor x = Tensor::of({sigma, 0, 0, rest}, {1, 2, 2}, DType::f64);
    newton_schulz(x, {.eps = 0}, 1, x);
    std::vector<double> y = to_vector(x);
    CHECK(std::fabs(y[0] - expected) < 6e-7);
    CHECK(y[1] == 0);
    CHECK(y[2] == 0);
  }
}

TEST_CASE("Newton-Schulz of a 3 x 4 matrix and of its transpose; a zero stays zero") {
  const std::vector<double> g = {1, 2, 3, 4, 0, -1, 2, 1, 2, 0, -1, 3},
                            expected = {.030455611775,  .486459093461,  .570754286726,
                                        .494564491924,  -.073445488889, -.552379303374,
                                        .610838709306,  .123825484909,  .574135546328,
                                        -.176051190511, -.600206987753, .638109552637};
  // A bank of the matrix, zeros, and the matrix made tiny.
  std::vector<double> bank = g, tall(36);
  bank.resize(24);
  for (double v : g) bank.push_back(1e-3 * v);
  for (int64_t k = 0; k < 3; k++) {
    for (int64_t i = 0; i < 3; i++) {
      for (int64_t j = 0; j < 4; j++)
        tall[size_t(k * 12 + j * 3 + i)] = bank[size_t(k * 12 + i * 4 + j)];
    }
  }
  Tensor wide = Tensor::of(bank, {3, 3, 4}, DType::f64);
  Tensor transposed = Tensor::of(tall, {3, 4, 3}, DType::f64);
  newton_schulz(wide, {}, 1, wide);
  newton_schulz(transposed, {}, 1, transposed);
  CHECK(distance(wide.slice(0, 1), expected) < 2e-12);
  CHECK(distance(wide.slice(1, 2), std::vector<double>(12, 0)) == 0);
  CHECK(distance(wide.slice(2, 3), expected) < 1e-4);  // eps counts a little
  std::vector<double> a = to_vector(wide), b = to_vector(transposed);
  for (size_t k = 0; k < 3; k++) {
    for (size_t i = 0; i < 3; i++) {
      for (size_t j = 0; j < 4; j++)
        CHECK(b[k * 12 + j * 3 + i] == doctest::Approx(a[k * 12 + i * 4 + j]).epsilon(1e-12));
    }
  }
  Tensor single = Tensor::of(g, {1, 3, 4});
  newton_schulz(single, {}, 1, single);
  CHECK(distance(single, expected) < 1e-5);
  Tensor flat({3, 4});
  CHECK_THROWS_AS(newton_schulz(flat, {}, 1, flat), Error);
}

TEST_CASE("the Gram form takes the same steps: wide and tall, any number of them, in every type") {
  for (auto [m, n] : {std::pair<int64_t, int64_t>{6, 24}, {24, 6}, {5, 5}, {1, 7}}) {
    for (int steps : {1, 2, 3, 5, 7}) {
      Tensor x({3, m, n}, DType::f64), y(x.shape(), DType::f64);
      engine(Device::cpu).random_normal(7, 1, 0, 1, x);
      engine(Device::cpu).copy(x, y);
      newton_schulz(x, {.steps = steps}, 0.5, x);
      newton_schulz(y, {.steps = steps, .gram = true}, 0.5, y);
      CAPTURE(m);
      CAPTURE(steps);
      CHECK(distance(y, to_vector(x)) < 1e-8);  // 3.4445^7 = 5753 times the rounding
    }
  }
  Tensor x({2, 16, 64}), exact({2, 16, 64}, DType::f64);
  engine(Device::cpu).random_normal(7, 1, 0, 1, x);
  engine(Device::cpu).copy(x, exact);
  newton_schulz(exact, {}, 1, exact);
  for (auto [dtype, most] : {std::pair{DType::f32, 1e-4}, {DType::bf16, 0.1}}) {
    Tensor bank(x.shape(), dtype), result(x.shape());
    engine(Device::cpu).copy(x, bank);
    newton_schulz(bank, {.gram = true}, 1, result);
    CHECK(distance(result, to_vector(exact)) < most);
  }
}

TEST_CASE("shape scales are their closed forms") {
  const struct {
    const char* name;
    int64_t m, n;
    double expected;
  } cases[] = {{"none", 8, 2, 1},
               {"none", 2, 8, 1},
               {"original", 8, 2, 2},
               {"original", 2, 8, 1},
               {"original", 5, 5, 1},
               {"spectral", 8, 2, 2},
               {"spectral", 2, 8, 0.5},
               {"match_rms_adamw", 100, 4, 2},
               {"match_rms_adamw", 4, 100, 2}};
  for (const auto& c : cases) {
    CAPTURE(c.name);
    CHECK(shape_scale(c.name, c.m, c.n) == doctest::Approx(c.expected).epsilon(1e-14));
  }
  CHECK(contains(input_error_of([] { shape_scale("origina", 1, 1); }), "'origina'"));
  // Whatever is listed lengthens Muon's direction by just that factor.
  for (const ShapeScale& scale : shape_scales()) {
    CAPTURE(scale.name);
    auto moved = [](const std::string& name) {
      Training t({{"w", {9, 4}}}, configured("muon", {{"scale", name}}), 0, DType::f64);
      std::vector<double> before = to_vector(t.parameters.values());
      t.steps(1, 1);
      return before[0] - to_vector(t.parameters.values())[0];
    };
    CHECK(moved(scale.name) == doctest::Approx(scale.factor(9, 4) * moved("none")).epsilon(1e-9));
  }
}

// ---------------------------------------------------------------------------------- schedules

TEST_CASE("every schedule warms up in a line, peaks at one, and ends where it should") {
  for (const ScheduleEntry& entry : schedule_list()) {
    CAPTURE(entry.name);
    Schedule s{entry.name, 100, 10, 0.05, 0.4};
    for (int64_t step = 1; step <= 10; step++)
      CHECK(s.factor(step) == doctest::Approx(double(step) / 10).epsilon(1e-14));
    s.warmup = 0;
    CHECK(s.factor(1) == doctest::Approx(1).epsilon(1e-3));
  }
  CHECK(Schedule{"constant", 100, 10, 0.05, 0.4}.factor(100) == 1);
  CHECK(Schedule{"cosine", 100, 10, 0.05, 0.4}.factor(100) == doctest::Approx(0.05));
  CHECK(Schedule{"cosine", 100, 10, 0.05, 0.4}.factor(55) == doctest::Approx((1 + 0.05) / 2));
  CHECK(Schedule{"wsd", 100, 10, 0.05, 0.4}.factor(60) == 1);
  CHECK(Schedule{"wsd", 100, 10, 0.05, 0.4}.factor(80) == doctest::Approx((1 + 0.05) / 2));
  CHECK(Schedule{"wsd", 100, 10, 0.05, 0.4}.factor(100) == doctest::Approx(0.05));
  CHECK(Schedule{"wsd", 100, 10, 0.05, 0}.factor(100) == 1);  // no decay at all
  CHECK(Schedule{"wsd", 100, 0, 0, 1}.factor(25) == doctest::Approx(0.75));
}

TEST_CASE("a schedule stays in [0, 1] and never jumps, whatever it is asked for") {
  for (const ScheduleEntry& entry : schedule_list()) {
    for (int64_t steps : {1, 2, 7, 100}) {
      for (int64_t warmup : {0, 1, 7, 99, 100, 101, 1000}) {
        for (double minimum : {0.0, 0.3, 1.0}) {
          for (double decay : {0.0, 0.01, 0.4, 1.0}) {
            Schedule s{entry.name, steps, warmup, minimum, decay};
            double before = s.factor(1);
            bool inside = true, continuous = true;
            // The steepest line: warm-up, or the decay over the steps that it has.
            double length = double(steps) - std::max(double(warmup), double(steps) * (1 - decay));
            if (entry.name == "cosine") length = double(steps - warmup) * 2 / M_PI;
            double slope =
                std::max(warmup ? 1 / double(warmup) : 0, length > 0 ? (1 - minimum) / length : 0);
            for (int64_t step = 1; step <= 2 * steps + 3; step++) {
              double factor = s.factor(step);
              inside = inside && factor >= 0 && factor <= 1;
              if (step <= steps)
                continuous = continuous && std::fabs(factor - before) <= slope + 1e-12;
              before = factor;
            }
            CAPTURE(entry.name);
            CAPTURE(steps);
            CAPTURE(warmup);
            CAPTURE(minimum);
            CAPTURE(decay);
            CHECK(inside);
            CHECK(continuous);
          }
        }
      }
    }
  }
}

TEST_CASE("a warm-up as long as the run never leaves its line") {
  for (const ScheduleEntry& entry : schedule_list()) {
    for (int64_t warmup : {50, 80}) {
      Schedule s{entry.name, 50, warmup, 0.1, 0.5};
      for (int64_t step = 1; step <= 50; step++)
        CHECK(s.factor(step) == doctest::Approx(double(step) / double(warmup)).epsilon(1e-14));
    }
  }
  std::string message = input_error_of([] { Schedule{"cosin", 10}.factor(5); });
  CHECK(contains(message, "'cosin'"));
  CHECK(contains(message, "'cosine'"));
}

// ------------------------------------------------------------------------------------ routing

TEST_CASE(
    "a parameter without an optimizer, or with two, or with one it does not suit, is refused") {
  Parameters p;
  p.add("h.0.weight", {4, 4}, Role::matrix, 1);
  p.add("wte.weight", {9, 4}, Role::embedding, 1);
  p.add("h.0.bias", {4}, Role::vector, 1);
  p.allocate(1);
  NamedOptimizer adamw = configured("adamw"), muon = configured("muon");
  auto refused = [&](const std::vector<Route>& routes) {
    std::string message = input_error_of([&] { assign_routes(routes, p.banks()); });
    CHECK(input_error_of([&] { Update update(p, routes, 1); }) == message);
    CHECK(!contains(message, "\n"));
    return message;
  };
  std::string nobody = refused({{Role::matrix, muon}, {Role::vector, adamw}});
  CHECK(contains(nobody, "'wte.weight'"));
  CHECK(contains(nobody, "no optimizer"));
  std::string both = refused({{Role::matrix, muon},
                              {Role::embedding, adamw},
                              {Role::vector, adamw},
                              {Role::matrix, adamw}});
  CHECK(contains(both, "'h.0.weight'"));
  CHECK(contains(both, "muon, adamw"));
  std::string unsuited =
      refused({{Role::matrix, muon}, {Role::embedding, muon}, {Role::vector, adamw}});
  CHECK(contains(unsuited, "'wte.weight'"));
  CHECK(contains(unsuited, "matrices only"));
  std::vector<Route> again = default_routes(adamw, adamw);
  again.push_back({Role::vector, muon});
  CHECK(contains(refused(again), "'h.0.bias'"));
}

TEST_CASE(
    "default routes: matrices to the main optimizer, the rest where it can go, vectors without "
    "decay") {
  Parameters p;
  p.add("m", {4, 4}, Role::matrix, 1);
  p.add("e", {9, 4}, Role::embedding, 1);
  p.add("h", {9, 5}, Role::head, 1);
  p.add("v", {4}, Role::vector, 1);
  p.allocate(1);
  NamedOptimizer adamw = configured("adamw"), muon = configured("muon"), sgd = configured("sgd");
  auto users = [&](const std::vector<Route>& routes) {
    std::string all;
    for (const Route* route : assign_routes(routes, p.banks()))
      all += route->use.name + (route->decay ? " " : "* ");
    return all;
  };
  CHECK(users(default_routes(muon, adamw)) == "muon adamw adamw adamw* ");
  CHECK(users(default_routes(sgd, adamw)) == "sgd sgd sgd sgd* ");
  std::string table = routing_table(default_routes(muon, adamw), p.banks());
  for (const Bank& bank : p.banks()) CHECK(contains(table, bank.name));
}

TEST_CASE("make_optimizer names the nearest") {
  for_each_optimizer([](const std::string& name) {
    std::string message = input_error_of([&] { make_optimizer(name + "x"); });
    CHECK(contains(message, "'" + name + "x'"));
    CHECK(contains(message, "'" + name + "'?"));
  });
}

// ----------------------------------------------------------------------------------- settings

TEST_CASE("settings are refused by name, kind, range and choice, and then unchanged") {
  double rate = 0.5;
  int64_t count = 3;
  bool flag = false;
  std::string word = "red";
  std::vector<Option> options = {{"rate", &rate, "a number", 0, 1},
                                 {"count", &count, "a whole number", 1, 9},
                                 {"flag", &flag, "yes or no"},
                                 {"word", &word, "a colour", 0, 0, {"red", "blue"}}};
  auto refused = [&](const std::string& name, const std::string& text) {
    std::string message = input_error_of([&] { set_option(options, "o.", name, text); });
    CAPTURE(message);
    CHECK(contains(message, "o." + name));
    return message;
  };
  CHECK(contains(refused("rat", "1"), "'o.rate'"));
  CHECK(contains(refused("counts", "1"), "'o.count'"));
  for (const char* text : {"", "x", "0.5x", " 0.5", "0,5", "--1"})
    CHECK(contains(refused("rate", text), "a number"));
  for (const char* text : {"1.01", "-0.01", "nan", "inf", "1e300"})
    CHECK(contains(refused("rate", text), "from 0 to 1"));
  for (const char* text : {"", "x", "2.5", "1e1", "99999999999999999999"})
    CHECK(contains(refused("count", text), "a whole number"));
  for (const char* text : {"0", "10", "-3"}) CHECK(contains(refused("count", text), "from 1 to 9"));
  for (const char* text : {"", "yes", "1", "True"})
    CHECK(contains(refused("flag", text), "true or false"));
  CHECK(contains(refused("word", "green"), "red, blue"));
  CHECK(rate == 0.5);
  CHECK(count == 3);
  CHECK(!flag);
  CHECK(word == "red");
  set_option(options, "", "rate", "1");
  set_option(options, "", "count", "9");
  set_option(options, "", "flag", "true");
  set_option(options, "", "word", "blue");
  CHECK(rate == 1);
  CHECK(count == 9);
  CHECK(flag);
  CHECK(word == "blue");
}

TEST_CASE("every setting of every optimizer reads back from its own text, and is described") {
  for_each_optimizer([](const std::string& name) {
    auto optimizer = make_optimizer(name);
    for (const Option& option : all_options(*optimizer)) {
      CAPTURE(option.name);
      std::string text = option_text(option);
      set_option(all_options(*optimizer), "", option.name, text);
      CHECK(option_text(option) == text);
      CHECK(!option.summary.empty());
      CHECK(!option_kind(option).empty());
    }
    CHECK(all_options(*optimizer)[0].name == "lr");
    CHECK(all_options(*optimizer)[1].name == "weight_decay");
  });
}

// ----------------------------------------------------------------------------------- clipping

TEST_CASE("the norm is global, told before clipping, and scales only what is above the limit") {
  Threads one(1);
  auto moved = [](double clip, double size, double& norm) {
    Training t({{"a", {2, 2}}, {"b", {1, 3}}, {"c", {2, 2}}},
               configured("sgd", {{"lr", "1"}, {"momentum", "0"}}), clip, DType::f64);
    for (const auto& [name, value] : {std::pair("a", 3.0), {"b", 4.0}, {"c", 12.0}})
      t.parameters.gradient(t.parameters.find(name)).data<double>()[1] = size * value;
    std::vector<double> start = to_vector(t.parameters.values());
    t.update->step(1, 1);
    norm = std::sqrt(item(t.update->gradient_squares()));
    std::vector<double> steps;
    for (const char* name : {"a", "b", "c"}) {
      const Parameter& p = t.parameters.find(name);
      steps.push_back(start[size_t(p.offset) + 1] - t.parameters.value(p).data<double>()[1]);
    }
    return steps;
  };
  double norm = 0;
  for (double clip : {0.0, 14.0, 1e9}) {
    CAPTURE(clip);
    auto steps = moved(clip, 1, norm);
    CHECK(norm == doctest::Approx(13).epsilon(1e-12));
    CHECK(steps[0] == doctest::Approx(3).epsilon(1e-12));
    CHECK(steps[1] == doctest::Approx(4).epsilon(1e-12));
    CHECK(steps[2] == doctest::Approx(12).epsilon(1e-12));
  }
  for (double size : {1.0, 100.0}) {
    auto steps = moved(6.5, size, norm);
    CHECK(norm == doctest::Approx(13 * size).epsilon(1e-12));
    CHECK(steps[0] == doctest::Approx(1.5).epsilon(1e-6));
    CHECK(steps[1] == doctest::Approx(2).epsilon(1e-6));
    CHECK(steps[2] == doctest::Approx(6).epsilon(1e-6));
  }
}
