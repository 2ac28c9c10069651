// tests/optim/known_answers_test.cpp - numbers worked out elsewhere, in double precision.
#include <algorithm>

#include "tensor/ops.h"
#include "tests/optim/training.h"

using namespace murmur;

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
                            {"eps", "1e-30"},
                            {"weight_decay", "0.5"}}) ==
        doctest::Approx((0.95 - 0.1) * 0.95).epsilon(1e-12));
}

namespace {

const std::vector<double> kW0 = {.1, -.2, .3, .4, .5, -.6, .7, -.8, -.9, 1, -1.1, 1.2},
                          kG1 = {1, 2, 3, 4, 0, -1, 2, 1, 2, 0, -1, 3},
                          kG2 = {0, 1, -1, 2, 1, 1, 0, -2, 3, -1, 1, 0};

struct Traced {
  std::vector<double> weights;
  std::vector<std::vector<double>> state;  // of `watch`, after every step
  std::vector<double> rms;                 // of W_before (1 - lr wd) - W_after, over lr
};

// Steps on one 3 x 4 matrix with gradients G1, then G2.
Traced two_steps_on_matrix(const std::string& name, const Settings& settings, DType dtype,
                           const std::string& watch = "") {
  Settings all = settings;
  if (dtype == DType::f32) all["ns_dtype"] = "fp32";
  NamedOptimizer use = configured(name, all);
  Training t({{"w", {3, 4}}}, use, 0, dtype);
  auto put = [](const std::vector<double>& from, Tensor& to) {
    ops::copy(Tensor::of(from, to.shape(), DType::f64), to);
  };
  Bank& bank = t.parameters.banks()[0];
  put(kW0, bank.value);
  Traced traced;
  double lr = use.optimizer->learning_rate, decay = use.optimizer->weight_decay;
  for (int64_t step : {1, 2}) {
    put(step == 1 ? kG1 : kG2, bank.gradient);
    std::vector<double> before = to_vector(bank.value);
    t.update->step(step, 1);
    double sum = 0;
    for (size_t i = 0; i < 12; i++)
      sum += std::pow(((1 - lr * decay) * before[i] - to_vector(bank.value)[i]) / lr, 2);
    traced.rms.push_back(std::sqrt(sum / 12));
    for (const auto& s : t.update->named_state()) {
      if (s.name == "w." + watch) traced.state.push_back(to_vector(s.tensor));
    }
  }
  traced.weights = to_vector(bank.value);
  return traced;
}

void check_close(const std::vector<double>& got, const std::vector<double>& expected,
                 double tolerance) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); i++) CHECK(std::fabs(got[i] - expected[i]) < tolerance);
}

constexpr std::pair<DType, double> kTypes[] = {{DType::f64, 1e-9}, {DType::f32, 1e-5}};

}  // namespace

TEST_CASE("two Muon steps on a 3 x 4 matrix") {
  for (auto [dtype, tolerance] : kTypes) {
    Traced t = two_steps_on_matrix("muon", {{"weight_decay", "0.01"}}, dtype);
    check_close(t.weights,
                {.096052210313, -.218817021704, .285595332323, .374867142374, .496664895147,
                 -.596123784957, .680463837087, -.793993386688, -.926436133631, 1.007742135506,
                 -1.088933655298, 1.179608766728},
                tolerance);
    // A sum in place of a mean: the same step, but for eps.
    Traced sum = two_steps_on_matrix("muon", {{"weight_decay", "0.01"}, {"ema", "false"}}, dtype);
    check_close(sum.weights, t.weights, std::max(tolerance, 1e-7));
  }
}

TEST_CASE("two NorMuon steps on a 3 x 4 matrix, as in the paper") {
  for (auto [dtype, tolerance] : kTypes) {
    Traced t = two_steps_on_matrix("normuon", {{"lr", "0.01"}}, dtype, "v");
    check_close(t.state[0], {.010099096475, .008737178122, .014100736057}, tolerance);
    check_close(t.state[1], {.022670552112, .014757796858, .024042986746}, tolerance);
    check_close(t.weights,
                {.099357533950, -.203786455252, .295528024497, .393392219826, .498106755396,
                 -.596518822686, .692483152999, -.797408871748, -.903672695633, .999591015629,
                 -1.095304842454, 1.193556441990},
                tolerance);
    for (double rms : t.rms) CHECK(std::fabs(rms - 0.2) < (dtype == DType::f64 ? 1e-12 : 1e-4));
  }
}

TEST_CASE("NorMuon's update has root mean square 0.2, whatever the gradient and the shape") {
  for (auto [m, n] : {std::pair<int64_t, int64_t>{24, 8}, {8, 24}, {16, 16}, {1, 9}, {9, 1}}) {
    NamedOptimizer use = configured("normuon", {{"lr", "1"}, {"weight_decay", "0"}});
    Training t({{"a", {m, n}}, {"b", {m, n}}}, use, 0, DType::f64);
    for (int64_t step = 1; step <= 6; step++) {
      t.random_gradients(step, std::pow(10.0, double(step % 3) - 1));
      for (const char* name : {"a", "b"}) {  // one neuron that says little, one nothing
        Tensor g = t.parameters.gradient(t.parameters.find(name));
        for (int64_t j = 0; j < n; j++) {
          g.data<double>()[j] *= 1e-3;
          if (m > 1) g.data<double>()[n + j] = 0;
        }
      }
      std::vector<double> before = to_vector(t.parameters.values());
      t.update->step(step, 1);
      for (const char* name : {"a", "b"}) {
        const Parameter& p = t.parameters.find(name);
        std::vector<double> after = to_vector(t.parameters.value(p));
        double sum = 0;
        for (size_t i = 0; i < after.size(); i++)
          sum += std::pow(after[i] - before[size_t(p.offset) + i], 2);
        CHECK(std::sqrt(sum / double(m * n)) == doctest::Approx(0.2).epsilon(1e-10));
      }
    }
  }
}

TEST_CASE("NorMuon's first step gives every neuron the same root mean square") {
  const int64_t m = 12, n = 5;
  NamedOptimizer use = configured("normuon", {{"lr", "1"}, {"weight_decay", "0"}});
  Training t({{"w", {m, n}}}, use, 0, DType::f64);
  std::vector<double> before = to_vector(t.parameters.values());
  t.steps(1, 1);
  std::vector<double> after = to_vector(t.parameters.values());
  for (size_t i = 0; i < size_t(m); i++) {
    double sum = 0;
    for (size_t j = 0; j < size_t(n); j++) sum += std::pow(after[i * n + j] - before[i * n + j], 2);
    CHECK(std::sqrt(sum / double(n)) == doctest::Approx(0.2).epsilon(1e-6));
  }
}

TEST_CASE("NorMuon's forms: what is kept, and how long the step is") {
  for (const char* form : {"paper", "code", "shape"}) {
    for (auto [m, n] : {std::pair<int64_t, int64_t>{12, 4}, {4, 12}, {6, 6}}) {
      CAPTURE(form);
      CAPTURE(m);
      bool columns = std::string(form) == "shape" && m < n, paper = std::string(form) == "paper";
      Settings settings = {{"form", form}, {"lr", "1"}, {"weight_decay", "0"}};
      Training t({{"w", {m, n}}}, configured("normuon", settings), 0, DType::f64);
      settings["scale"] = "none";
      for (const auto& s : t.update->named_state()) {
        if (s.name == "w.v") CHECK(s.tensor.numel() == (columns ? n : m));
      }
      std::vector<double> before = to_vector(t.parameters.values());
      t.steps(1, 1);
      double sum = 0;
      for (size_t i = 0; i < before.size(); i++)
        sum += std::pow(to_vector(t.parameters.values())[i] - before[i], 2);
      // The step of plain Muon from the same gradient, with the same orthogonaliser.
      Training plain(
          {{"w", {m, n}}},
          configured("muon", {{"lr", "1"},
                              {"nesterov", paper ? "false" : "true"},
                              {"orthogonalizer",
                               std::string(form) == "shape" ? "polar_express" : "jordan5"}}),
          0, DType::f64);
      plain.steps(1, 1);
      double muon = 0;
      for (size_t i = 0; i < before.size(); i++)
        muon += std::pow(to_vector(plain.parameters.values())[i] - before[i], 2);
      double expected = paper ? 0.2 * std::sqrt(double(m * n)) : std::sqrt(muon);
      CHECK(std::sqrt(sum) == doctest::Approx(expected).epsilon(1e-9));
    }
  }
}

TEST_CASE("permuting neurons permutes NorMuon's update; scaling the gradient changes nothing") {
  const int64_t m = 7, n = 4;
  auto moved = [&](bool reversed, double size) {
    Training t({{"w", {m, n}}}, configured("normuon", {{"lr", "1"}, {"weight_decay", "0"}}), 0,
               DType::f64);
    std::vector<double> before = to_vector(t.parameters.values());
    for (int64_t step = 1; step <= 3; step++) {
      t.random_gradients(step, size);
      std::vector<double> g = to_vector(t.parameters.gradients());
      for (int64_t i = 0; i < m && reversed; i++) {
        for (int64_t j = 0; j < n; j++)
          t.parameters.gradients().data<double>()[(m - 1 - i) * n + j] = g[size_t(i * n + j)];
      }
      t.update->step(step, 1);
    }
    std::vector<double> d(size_t(m * n));
    for (int64_t i = 0; i < m; i++) {
      for (int64_t j = 0; j < n; j++) {
        int64_t row = reversed ? m - 1 - i : i;
        d[size_t(i * n + j)] =
            to_vector(t.parameters.values())[size_t(row * n + j)] - before[size_t(row * n + j)];
      }
    }
    return d;
  };
  check_close(moved(true, 1), moved(false, 1), 1e-11);
  check_close(moved(false, 100), moved(false, 1), 1e-5);  // eps counts a little
}

TEST_CASE("AdaMuon's first step is 0.2 times a sign, and every step has root mean square 0.2") {
  Training t({{"w", {5, 8}}}, configured("adamuon", {{"lr", "1"}, {"weight_decay", "0"}}), 0,
             DType::f64);
  for (int64_t step = 1; step <= 3; step++) {
    std::vector<double> before = to_vector(t.parameters.values());
    t.steps(step, step);
    double sum = 0;
    for (size_t i = 0; i < 40; i++) {
      double d = to_vector(t.parameters.values())[i] - before[i];
      if (step == 1) CHECK(std::fabs(std::fabs(d) - 0.2) < 1e-4);
      sum += d * d;
    }
    CHECK(std::sqrt(sum / 40) == doctest::Approx(0.2).epsilon(1e-8));
  }
}

TEST_CASE("two steps by hand: Lion, normalised SGD, schedule-free AdamW") {
  auto trace = [](const std::string& name, const Settings& settings,
                  const std::vector<double>& gradients, bool evaluated = false) {
    Training t({{"w", {1, 1}}}, configured(name, settings), 0, DType::f64);
    t.parameters.values().data<double>()[0] = 1;
    for (size_t i = 0; i < gradients.size(); i++) {
      t.parameters.gradients().data<double>()[0] = gradients[i];
      t.update->step(int64_t(i) + 1, 1);
    }
    double w = item(t.parameters.values());
    if (evaluated) t.update->with_evaluation_values([&] { w = item(t.parameters.values()); });
    return w;
  };
  // Signs of 0.5 * 2, then of 0.5 (0.25 * 2) + 0.5 * (-1) = -0.25.
  Settings lion = {{"lr", "0.1"}, {"beta1", "0.5"}, {"beta2", "0.75"}, {"weight_decay", "0.5"}};
  CHECK(trace("lion", lion, {2}) == doctest::Approx(0.95 - 0.1));
  CHECK(trace("lion", lion, {2, -1}) == doctest::Approx((0.95 - 0.1) * 0.95 + 0.1));
  Settings nsgd = {{"lr", "0.1"}, {"momentum", "0.5"}};
  CHECK(trace("nsgd", nsgd, {5, -1}) == doctest::Approx(1 - 0.1 - 0.1));  // 2.5, then 0.75
  // Written out with z, x and y. b2 = 0: u = g / (|g| + eps) + decay y.
  double lr = 0.1, b1 = 0.8, decay = 0.5, z = 1, x = 1, y = 1, sum = 0;
  std::vector<double> gradients = {3, -2, 1, 5};
  for (double g : gradients) {
    double u = (g > 0 ? 1 : -1) + decay * y;
    sum += lr * lr;
    double c = lr * lr / sum;
    z -= lr * u;
    x = (1 - c) * x + c * z;
    y = (1 - b1) * z + b1 * x;
  }
  Settings free = {
      {"lr", "0.1"}, {"beta1", "0.8"}, {"beta2", "0"}, {"eps", "1e-30"}, {"weight_decay", "0.5"}};
  CHECK(trace("schedule_free_adamw", free, gradients) == doctest::Approx(y).epsilon(1e-12));
  CHECK(trace("schedule_free_adamw", free, gradients, true) == doctest::Approx(x).epsilon(1e-12));
}

TEST_CASE("normalised SGD moves by the rate, however small the gradient is") {
  for (double size : {1.0, 1e-18, 1e-22, 1e-24, 1e-28}) {
    Training t({{"w", {3, 4}}}, configured("nsgd", {{"lr", "1"}, {"momentum", "0.5"}}));
    std::vector<double> before = to_vector(t.parameters.values());
    t.random_gradients(1, size);
    t.update->step(1, 1);
    double sum = 0;
    for (size_t i = 0; i < 12; i++)
      sum += std::pow(to_vector(t.parameters.values())[i] - before[i], 2);
    CHECK(std::sqrt(sum) == doctest::Approx(1).epsilon(size < 1e-25 ? 0.02 : 1e-5));
  }
}

TEST_CASE("Dion at full rank applies everything; at low rank it keeps the rest for later") {
  // One matrix, one gradient: what is applied has rank r, singular vectors of the momentum's
  // best directions; what is kept is the rest plus mu times the applied part.
  for (double share : {1.0, 0.5}) {
    Training t({{"w", {6, 4}}},
               configured("dion", {{"rank", share == 1 ? "1" : "0.5"}, {"momentum", "0.9"}}), 0,
               DType::f64);
    t.steps(1, 1);
    for (const auto& s : t.update->named_state()) {
      CAPTURE(s.name);
      if (s.name == "w.Q") {
        CHECK(s.tensor.rows() == (share == 1 ? 4 : 2));
        std::vector<double> q = to_vector(s.tensor);
        for (size_t i = 0; i < size_t(s.tensor.rows()); i++) {
          double length = 0;
          for (size_t j = 0; j < 4; j++) length += q[i * 4 + j] * q[i * 4 + j];
          CHECK(length == doctest::Approx(1).epsilon(1e-12));
        }
      }
      if (s.name == "w.momentum" && share == 1) {  // all of the gradient was applied
        std::vector<double> g = to_vector(t.parameters.gradients());
        for (double& v : g) v *= 0.9;
        CHECK(distance(s.tensor, g) < 1e-12);
      }
    }
  }
}
