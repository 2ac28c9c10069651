// tests/train/synthetic_test.cpp - the made-up functions and their noise are what they say they
// are, runs on them are runs of the real methods, and the arithmetic of the rates is right.
#include "train/synthetic.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tensor/ops.h"
#include "tests/train/run_command.h"
#include "train/files.h"  // read_file
#include "train/significance.h"

using namespace murmur;

namespace {

Tensor random_matrix(int64_t rows, int64_t cols, uint64_t stream) {
  Tensor x({rows, cols}, DType::f64);
  ops::random_normal(3, stream, 0, 1, x);
  return x;
}

std::vector<double> draws(const std::string& noise, int64_t count, double scale = 1) {
  Tensor x = Tensor::zeros({count}, DType::f64);
  Noise(noise, scale).add(5, 1, 2, x);
  return to_vector(x);
}

double share(const std::vector<double>& x, const auto& of) {
  return double(std::count_if(x.begin(), x.end(), of)) / double(x.size());
}

// That many standard deviations of a share that is really p.
double surprise(double share, double p, double count) {
  return std::abs(share - p) / std::sqrt(p * (1 - p) / count);
}

SyntheticProblem small_problem() {
  SyntheticProblem p;
  p.landscape.rows = 6;
  p.landscape.cols = 4;
  return p;
}

// A recipe's run; assignments win over it.
Config run_of(const std::string& recipe, int64_t nodes, int64_t steps,
              std::vector<Assignment> more = {}) {
  std::vector<Assignment> all = {{"recipe", recipe},
                                 {"nodes", std::to_string(nodes)},
                                 {"steps", std::to_string(steps)},
                                 {"schedule", "constant"},
                                 {"warmup", "0"},
                                 {"seed", "4"}};
  all.insert(all.end(), more.begin(), more.end());
  return make_config(all);
}

}  // namespace

TEST_CASE("gradients of every objective are those of finite differences, on every node") {
  Landscape l{.rows = 5, .cols = 3, .nodes = 3, .seed = 8, .condition = 20, .heterogeneity = 0.7};
  for (const ObjectiveEntry& entry : objective_list()) {
    CAPTURE(entry.name);
    std::unique_ptr<Objective> f = entry.make(l);
    Tensor x = random_matrix(5, 3, 1), g(x.shape(), DType::f64);
    double* at = x.data<double>();
    for (int64_t node = 0; node < l.nodes; node++) {
      f->gradient(node, x, g);
      for (int64_t i = 0; i < x.numel(); i++) {
        constexpr double h = 1e-5;
        double here = at[i];
        at[i] = here + h;
        double up = f->value(node, x);
        at[i] = here - h;
        double down = f->value(node, x);
        at[i] = here;
        CHECK(g.data<double>()[i] == doctest::Approx((up - down) / (2 * h)).epsilon(1e-7));
      }
    }
    CHECK(f->value(0, x) != f->value(1, x));
  }
}

TEST_CASE("without heterogeneity all nodes have the same function") {
  for (const ObjectiveEntry& entry : objective_list()) {
    CAPTURE(entry.name);
    std::unique_ptr<Objective> f = entry.make({.nodes = 3, .heterogeneity = 0});
    Tensor x = random_matrix(16, 8, 2);
    CHECK(f->value(0, x) == f->value(2, x));
    CHECK(f->mean_value(x) == doctest::Approx(f->value(1, x)).epsilon(1e-14));
  }
}

TEST_CASE("gradient descent reaches the minima that are known, and nothing is below them") {
  for (const char* name : {"quadratic", "factorisation"}) {
    CAPTURE(name);
    Landscape l{.rows = 6, .cols = 3, .nodes = 4, .seed = 2, .condition = 5};
    std::unique_ptr<Objective> f = make_objective(name, l);
    double least = f->least().value();
    Tensor x = random_matrix(6, 3, 4);
    for (int step = 0; step < 6000; step++) {
      CHECK(f->mean_value(x) > least - 1e-12);
      ops::scale(-0.1, f->mean_gradient(x), {x, true});
    }
    CHECK(f->mean_value(x) == doctest::Approx(least).epsilon(1e-9));
    CHECK(nuclear_norm(f->mean_gradient(x)) < 1e-7);
  }
  CHECK(!make_objective("robust", {})->least());
}

TEST_CASE("a node's quadratic has the condition that was asked for, and smoothness 1") {
  std::unique_ptr<Objective> f =
      make_objective("quadratic", {.rows = 4, .cols = 1, .condition = 9});
  // Powers of the Hessian, whose columns are differences of gradients, and of 1 - it.
  Tensor zero = Tensor::zeros({4, 1}, DType::f64), base(zero.shape(), DType::f64);
  f->gradient(3, zero, base);
  double largest = 0, smallest = 0;
  for (bool shifted : {false, true}) {
    Tensor x = random_matrix(4, 1, 6), hx(x.shape(), DType::f64);
    double length = 0;
    for (int i = 0; i < 500; i++) {
      f->gradient(3, x, hx);
      ops::scale(-1, base, {hx, true});
      if (shifted) {
        ops::scale(-1, hx, {hx});
        ops::scale(1, x, {hx, true});
      }
      length = nuclear_norm(hx);
      ops::scale(1 / length, hx, {x});
    }
    (shifted ? smallest : largest) = shifted ? 1 - length : length;
  }
  CHECK(largest == doctest::Approx(1).epsilon(1e-9));
  CHECK(smallest == doctest::Approx(1.0 / 9).epsilon(1e-9));
}

TEST_CASE("the nuclear norm is the sum of singular values") {
  CHECK(nuclear_norm(Tensor::of({3, 0, 0, -4, 0, 0}, {3, 2}, DType::f64)) == doctest::Approx(7));
  CHECK(nuclear_norm(Tensor::of({1, 1, 1, 1}, {2, 2}, DType::f64)) == doctest::Approx(2));
  CHECK(nuclear_norm(Tensor::zeros({2, 3}, DType::f64)) == 0);
}

TEST_CASE("noise is a pure function of seed, node and step, and is added") {
  auto noise = [](int64_t seed, int64_t node, int64_t step, double before = 0) {
    Tensor x({6}, DType::f64);
    ops::fill(x, before);
    Noise("levy:1.3", 2).add(seed, node, step, x);
    return to_vector(x);
  };
  CHECK(noise(1, 2, 3) == noise(1, 2, 3));
  CHECK(noise(1, 2, 3) != noise(2, 2, 3));
  CHECK(noise(1, 2, 3) != noise(1, 3, 3));
  CHECK(noise(1, 2, 3) != noise(1, 2, 4));
  CHECK(noise(1, 2, 3, 7)[5] == doctest::Approx(7 + noise(1, 2, 3)[5]));
  CHECK(draws("student_t:1.5", 8, 3)[4] == doctest::Approx(3 * draws("student_t:1.5", 8)[4]));
  CHECK(draws("none", 2) == std::vector<double>{0, 0});
}

TEST_CASE("Gaussian and Student's noise have their distributions, far into the tails") {
  constexpr int64_t n = 1000000;
  std::vector<double> normal = draws("gaussian", n);
  CHECK(surprise(share(normal, [](double x) { return x > 0; }), 0.5, n) < 4);
  for (double t : {0.1, 0.7, 1.5, 3.0}) {
    double p = std::erfc(t / std::sqrt(2.0));
    CHECK(surprise(share(normal, [&](double x) { return std::abs(x) > t; }), p, n) < 4);
  }
  for (double nu : {1.2, 1.5, 3.0}) {
    std::vector<double> x = draws("student_t:" + std::to_string(nu), n);
    CHECK(surprise(share(x, [](double v) { return v > 0; }), 0.5, n) < 4);
    for (double t : {0.2, 1.0, 3.0, 10.0, 30.0, 300.0}) {
      CAPTURE(nu);
      CAPTURE(t);
      double p = student_p(t, nu);
      if (p * double(n) < 10) continue;
      CHECK(surprise(share(x, [&](double v) { return std::abs(v) > t; }), p, n) < 4);
    }
  }
}

TEST_CASE("stable noise has its characteristic function and its tail") {
  constexpr int64_t n = 1000000;
  for (double alpha : {1.2, 1.5, 1.8, 2.0}) {
    CAPTURE(alpha);
    std::vector<double> x = draws("levy:" + std::to_string(alpha), n);
    CHECK(surprise(share(x, [](double v) { return v > 0; }), 0.5, n) < 4);
    for (double s : {0.1, 0.5, 1.0, 2.0}) {
      CAPTURE(s);
      double sum = 0;
      for (double v : x) sum += std::cos(s * v);
      double exact = std::exp(-std::pow(s, alpha));
      double variance = (1 + std::exp(-std::pow(2 * s, alpha))) / 2 - exact * exact;
      CHECK(std::abs(sum / n - exact) < 4 * std::sqrt(variance / n));
    }
    if (alpha == 2) continue;
    // P(|X| > t) ~ 2 / pi sin(pi alpha / 2) gamma(alpha) t^-alpha; the next term is t^-2alpha.
    double t = 200,
           p = 2 / M_PI * std::sin(M_PI * alpha / 2) * std::tgamma(alpha) * std::pow(t, -alpha);
    double found = share(x, [&](double v) { return std::abs(v) > t; });
    CHECK(surprise(found, p, n) < 4);
  }
}

TEST_CASE("tails thin out with the index that is claimed") {
  for (const char* text : {"student_t:1.2", "student_t:1.5", "levy:1.2"}) {
    CAPTURE(text);
    std::vector<double> x = draws(text, 1000000);
    for (double& v : x) v = std::abs(v);
    constexpr size_t most = 2000;  // Hill's estimate, standard error index / sqrt(most)
    std::nth_element(x.begin(), x.begin() + most, x.end(), std::greater<>());
    double sum = 0;
    for (size_t i = 0; i < most; i++) sum += std::log(x[i] / x[most]);
    double index = Noise(text, 1).tail_index();
    CHECK(double(most) / sum == doctest::Approx(index).epsilon(0.1));
  }
  CHECK(Noise("gaussian", 1).tail_index() == 2);
  CHECK(Noise("student_t:7", 1).tail_index() == 2);
}

TEST_CASE("noise that is none is refused, with what would be") {
  auto refused = [](const std::string& text, const std::string& part) {
    CAPTURE(text);
    CHECK_THROWS_WITH_AS(Noise(text, 1), doctest::Contains(part.c_str()), InputError);
  };
  refused("gausian", "did you mean 'gaussian'?");
  refused("gaussian:2", "no index");
  refused("student_t", "student_t:1.5");
  refused("student_t:", "index above 1");
  refused("student_t:1", "index above 1");
  refused("levy:2.1", "up to 2");
  refused("levy:1.5x", "index above 1");
}

TEST_CASE("the same functions without noise on a complete graph: nodes are one node") {
  SyntheticProblem problem = small_problem();
  problem.noise = "none";
  problem.landscape.heterogeneity = 0;
  for (const char* recipe : {"demuon", "gt_nsgdm", "dsgd", "sen"}) {
    CAPTURE(recipe);
    Trace one = run_synthetic(run_of(recipe, 1, 60), problem),
          four = run_synthetic(run_of(recipe, 4, 60, {{"topology", "complete"}}), problem);
    REQUIRE(one.steps == four.steps);
    for (size_t i = 0; i < one.steps.size(); i++) {
      CHECK(four.stationarity[i] == doctest::Approx(one.stationarity[i]).epsilon(1e-9));
      CHECK(four.consensus[i] < 1e-12);
    }
  }
}

TEST_CASE("every recipe runs on every objective, twice to the same bits") {
  SyntheticProblem problem = small_problem();
  for (const ObjectiveEntry& objective : objective_list()) {
    problem.objective = objective.name;
    for (const Recipe& recipe : recipe_list()) {
      CAPTURE(objective.name);
      CAPTURE(recipe.name);
      Config config = run_of(recipe.name, 3, 20, {{"lr", "0.001"}});
      Trace first = run_synthetic(config, problem), again = run_synthetic(config, problem);
      CHECK(first.diverged == "");
      CHECK(first.stationarity == again.stationarity);
      CHECK(first.stationarity.back() != first.stationarity.front());
      CHECK(first.running_mean.back() == doctest::Approx(first.mean));
      CHECK(first.excess.empty() == (objective.name == "robust"));
    }
  }
}

TEST_CASE("demuon gets stationary under noise without variance; a rate too high is told") {
  SyntheticProblem problem = small_problem();
  Trace trace = run_synthetic(run_of("demuon", 4, 600, {{"lr", "0.03"}}), problem);
  CHECK(trace.late < 0.3 * trace.stationarity[0]);
  CHECK(trace.mean > trace.late);
  Trace lost = run_synthetic(run_of("dsgd", 4, 2000, {{"lr", "30"}}), problem);
  CHECK(contains(lost.diverged, "step "));
  CHECK(std::isinf(lost.mean));
}

TEST_CASE("tracking finds the mean's stationary point, normalising each node's gradient does not") {
  SyntheticProblem problem = small_problem();
  problem.noise = "none";
  std::vector<Assignment> falling = {{"lr", "0.1"}, {"schedule", "cosine"}, {"min_lr", "0"}};
  std::vector<Assignment> alone = falling;
  for (const char* name : {"strategy", "optimizer.momentum"})
    alone.emplace_back(name, name == std::string("strategy") ? "gossip" : "0.8");
  Trace tracked = run_synthetic(run_of("demuon", 4, 1000, falling), problem),
        local = run_synthetic(run_of("demuon", 4, 1000, alone), problem);
  CHECK(tracked.stationarity.back() < 0.02);
  CHECK(local.stationarity.back() > 0.3);
}

TEST_CASE("the exponents of the theory, and slopes of power laws") {
  CHECK(TheoryRule{2}.bound() == doctest::Approx(-0.25));
  CHECK(TheoryRule{2}.rate_exponent() == doctest::Approx(-0.75));
  CHECK(TheoryRule{2}.theta_exponent() == doctest::Approx(-0.5));
  CHECK(TheoryRule{1.5}.bound() == doctest::Approx(-0.2));
  CHECK(TheoryRule{1.2}.bound() == doctest::Approx(-0.125));
  std::vector<int64_t> horizons = {100, 1000, 10000};
  auto fit_of = [&](std::vector<double> slopes) {
    RateFit fit;
    for (int64_t steps : horizons) {
      fit.runs.emplace_back();
      for (double s : slopes) {
        Trace trace;
        trace.mean = 7 * std::pow(double(steps), s);
        fit.runs.back().push_back(trace);
      }
    }
    fit_slopes(horizons, {2}, fit);
    return fit;
  };
  RateFit steep = fit_of({-0.3, -0.29, -0.31}), flat = fit_of({-0.2, -0.19, -0.21});
  CHECK(steep.slope == doctest::Approx(-0.3));
  CHECK(steep.error == doctest::Approx(0.01 / std::sqrt(3.0)));
  CHECK(steep.last_slope == doctest::Approx(-0.3));
  CHECK(steep.flatter_p > 0.98);
  CHECK(flat.flatter_p < 0.02);
  CHECK(fit_of({-0.25, -0.2, -0.3}).flatter_p == doctest::Approx(0.5));
}

TEST_CASE("murmur synthetic: a race and the rates, on terminal, as Markdown, JSON and picture") {
  TemporaryFolder folder;
  Words common = {"synthetic", "--rows", "4",     "--cols", "3",
                  "--seeds",   "2",      "--lrs", "1,3",    "--out"};
  std::string out =
      output_of(common + Words{folder / "race", "--nodes", "13", "--steps", "20", "--recipes",
                               "demuon, dsgd:optimizer.lr=0.01", "--json", folder / "copy.json"});
  for (const char* part : {"dsgd:optimizer.lr=0.01", "worst seed", "picked", "student_t:1.5"})
    CHECK(contains(out, part));
  for (const char* file : {"race/synthetic.md", "race/synthetic.png", "race/synthetic.json"})
    CHECK(std::filesystem::exists(folder / file));
  CHECK(murmur::read_file(folder / "copy.json") ==
        murmur::read_file(folder / "race/synthetic.json"));
  out = output_of(common + Words{folder / "rates", "--nodes", "2", "--rates", "--horizons", "16,64",
                                 "--recipes", "demuon", "--noise", "gaussian"});
  for (const char* part : {"slope", "-0.25", "T = 64", "must not stay flatter"})
    CHECK(contains(out, part));
}

TEST_CASE("murmur synthetic refuses what cannot be, in one line") {
  check_refused({"synthetic", "--objective", "quadric"}, {"objective", "'quadratic'"});
  check_refused({"synthetic", "--noise", "levy:3"}, {"noise", "levy:1.5"});
  check_refused({"synthetic", "--recipes", "demon"}, {"recipe", "demon"});
  check_refused({"synthetic", "--recipes", "demuon:momentum"}, {"demuon:momentum", "no setting"});
  check_refused({"synthetic", "--recipes", "dsgd:optimizer.mu=1"}, {"dsgd:optimizer.mu=1"});
  check_refused({"synthetic", "--lr", "0.1"}, {"lr", "behind its name"});
  check_refused({"synthetic", "--nodes", "6", "--topology", "hypercube"}, {"topology"});
  check_refused({"synthetic", "--recipes", "demuon:strategy=fsdp"}, {"strategy", "fsdp"});
  check_refused({"synthetic", "--rates", "--recipes", "dsgd"}, {"rates", "momentum"});
  check_refused({"synthetic", "--rates", "--horizons", "64,64"}, {"horizons"});
  check_refused({"synthetic", "--rows", "0"}, {"--rows"});
  check_refused({"synthetic", "--json", "/"}, {"json: ", "directory"});
}
