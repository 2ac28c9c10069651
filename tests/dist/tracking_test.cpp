// Gradient tracking: what trackers keep, answers that are known, and bounds. What other methods
// keep, and where they would diverge.
#include <filesystem>
#include <fstream>

#include "dist/topology_report.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"
#include "tests/dist/nodes.h"

using namespace murmur;

TEST_CASE("the sum of trackers is the sum of what is tracked, after every step") {
  for (const char* graph : {"ring", "star", "exponential", "one_peer_exponential", "base2"}) {
    for (const Settings& settings : {Settings{{"momentum", "0.8"}},
                                     {{"order", "cta"}},
                                     {{"wire", "bf16"}},
                                     {{"wire", "int8"}},
                                     {{"order", "cta"}, {"overlap", "true"}},
                                     {{"gossip_rounds", "2"}}}) {
      bool replicas = settings.count("wire") && settings.at("wire") == "int8";
      bool changes = std::string(graph) == "one_peer_exponential" || std::string(graph) == "base2";
      if (replicas && changes) continue;  // the weights' would need a graph that stays
      CAPTURE(graph);
      for (const auto& [key, value] : settings) {
        CAPTURE(key);
        CAPTURE(value);
      }
      HeavyTails noise(100);
      Bare bare{.settings = settings,
                .graph = {.name = graph},
                .nodes = 6,
                .declared = {{"a", {10, 10}}},
                .steps = 25};
      bare.gradient = [&](int64_t step, int rank, const Tensor&, Tensor& g) {
        ops::copy(Tensor::of(noise.row(step, rank), g.shape()), g);
      };
      run(bare, [&](int64_t, const Seen& seen) {
        CHECK(relative_error(mean(seen.tracker), mean(seen.tracked)) < 1e-13);
      });
    }
  }
}

// The table of errors: mean y against mean m after 5,000 steps on a ring of 8, relative.
TEST_CASE("trackers keep the mean for 5000 steps, whatever travels; the naive product does not") {
  const int64_t steps = 5000, size = 64;
  HeavyTails noise(size);
  auto gradient = [&](int64_t step, int rank, const Tensor&, Tensor& g) {
    const Row& row = noise.row(step, rank);
    for (int64_t p = 0; p < size; p++) g.data<float>()[p] = float(row[size_t(p)]);
  };
  for (const std::string& wire : kWires) {
    CAPTURE(wire);
    Bare bare{.settings = {{"wire", wire}, {"momentum", "0.8"}},
              .declared = {{"a", {8, 8}}},
              .type = DType::f32,
              .steps = steps,
              .moves = false,
              .gradient = gradient};
    Seen seen = run(bare);
    double error = relative_error(mean(seen.tracker), mean(seen.tracked));
    MESSAGE(wire << ": " << error);
    CHECK(error < 1e-5);
  }
  // y <- W q(y), with what everybody hears of everybody, itself included.
  auto naive = [&](auto rounded) {
    using Q = decltype(rounded);
    std::vector<std::vector<float>> y(8, std::vector<float>(size_t(size))), m = y, q = y;
    for (int64_t step = 1; step <= steps; step++) {
      for (int i = 0; i < 8; i++) {
        const Row& g = noise.row(step, i);
        for (size_t p = 0; p < size_t(size); p++) {
          float next = 0.8f * m[size_t(i)][p] + 0.2f * float(g[p]);
          q[size_t(i)][p] = float(Q(y[size_t(i)][p] + next - m[size_t(i)][p]));
          m[size_t(i)][p] = next;
        }
      }
      for (size_t i = 0; i < 8; i++) {
        for (size_t p = 0; p < size_t(size); p++)
          y[i][p] = (q[(i + 7) % 8][p] + q[i][p] + q[(i + 1) % 8][p]) * (1 / 3.f);
      }
    }
    Stack trackers, tracked;
    for (size_t i = 0; i < 8; i++) {
      trackers.emplace_back(y[i].begin(), y[i].end());
      tracked.emplace_back(m[i].begin(), m[i].end());
    }
    return relative_error(mean(trackers), mean(tracked));
  };
  CHECK(naive(float()) > 1e-5);
  CHECK(naive(bf16()) > 1e-3);
}

// With a momentum of .8 of what is tracked (DeMuon), or of the tracker: the same trajectories
// where W stays the same, others where it changes.
TEST_CASE("tracking and momentum commute on static graphs, and on no other") {
  auto experiment = [](const char* strategy_momentum, const char* momentum) {
    Experiment x = small("muon");
    auto use = [&](const char* name, Settings settings) {
      settings["momentum"] = momentum;
      settings["lr"] = "0.01";
      return configured(name, settings);
    };
    x.settings.routes =
        default_routes(use("muon", {{"form", "plain"}}), use("nsgd", {}), "whole", true);
    x.settings.clip = 0;
    x.steps = 30;
    return with(x, "gradient_tracking", {{"momentum", strategy_momentum}});
  };
  Experiment before = experiment("0.8", "0"), after = experiment("0", "0.8");
  for (const auto& [graph, nodes, same] : {std::tuple{"ring", 4, true},
                                           {"ring", 5, true},
                                           {"exponential", 6, true},
                                           {"one_peer_exponential", 4, false},
                                           {"base2", 6, false}}) {
    CAPTURE(graph);
    before.graph.name = after.graph.name = graph;
    before.settings.batch_size = after.settings.batch_size = 2 * nodes;
    double difference = largest_difference(trained(before, nodes), trained(after, nodes));
    if (same)
      CHECK(difference < 1e-12);
    else
      CHECK(difference > 1e-4);
  }
}

// The means of the trackers do not tell one order from the other.
TEST_CASE("on a graph that changes the two orders have the same mean, but not the same nodes") {
  HeavyTails noise(6);
  Seen seen[2];
  for (int after : {0, 1}) {
    Bare bare{.settings = {{"momentum", after ? "0" : "0.8"}},
              .graph = {.name = "one_peer_exponential"},
              .nodes = 4,
              .steps = 21};
    bare.use = configured("sgd", {{"momentum", "0"}, {"lr", "0"}});
    Stack average(4, Row(6));  // after the tracker, by hand
    bare.gradient = [&](int64_t step, int rank, const Tensor&, Tensor& g) {
      ops::copy(Tensor::of(noise.row(step, rank), g.shape()), g);
    };
    run(bare, [&](int64_t, const Seen& s) {
      average = after ? 0.8 * average + 0.2 * s.tracker : s.tracker;
    });
    seen[after].tracker = average;
  }
  CHECK(largest_difference(mean(seen[0].tracker), mean(seen[1].tracker)) < 1e-13);
  CHECK(largest_difference(seen[0].tracker, seen[1].tracker) > 1e-2);
}

namespace {

// f_i = |X - A_i|^2 / 2
Bare quadratic(const Stack& targets) {
  Bare bare{.nodes = int(targets.size())};
  bare.gradient = [=](int64_t, int rank, const Tensor& x, Tensor& g) {
    Tensor target = Tensor::of(targets[size_t(rank)], x.shape(), x.dtype());
    ops::zip(binary::sub, x, target, g);
  };
  return bare;
}

}  // namespace

TEST_CASE("DeMuon with exact polar factors on a ring of 4: the known answer after three rounds") {
  for (bool after : {false, true}) {
    Bare bare = quadratic(
        {{1, 0, 2, 0, 1, -1}, {0, 3, 1, 2, 0, 1}, {-1, 1, 0, 1, -2, 4}, {2, 2, -3, 0, 1, 1}});
    bare.settings = {{"momentum", after ? "0" : "0.8"}};
    bare.use = configured("muon", {{"form", "plain"},
                                   {"momentum", after ? "0.8" : "0"},
                                   {"lr", "0.1"},
                                   {"orthogonalizer", "exact"}});
    Stack x = run(bare).weights;
    for (Row& row : x) row.resize(6);
    CHECK(largest_difference(x[0], {.080739862705, .275725923502, -.016166581526, .151182718278,
                                    -.021275258700, .252996913656}) < 1e-12);
    CHECK(disagreement(x) == doctest::Approx(.020893194882).epsilon(1e-10));
  }
}

TEST_CASE("vectors step by the learning rate, each in the direction of its own tracker") {
  HeavyTails noise(5);
  Bare bare{.nodes = 1, .declared = {{"b", {5}, Role::vector}, {"c", {5}, Role::vector}}};
  bare.use = configured("nsgd", {{"momentum", "0"}, {"lr", "0.1"}});
  bare.gradient = [&](int64_t step, int, const Tensor&, Tensor& g) {
    Row all = Row(size_t(g.numel()));
    for (size_t p = 0; p < 5; p++) {
      all[p] = noise.row(step, 0)[p];
      all[p + 5] = 100 * all[p];
    }
    ops::copy(Tensor::of(all, g.shape(), g.dtype()), g);
  };
  Row last(10);
  run(bare, [&](int64_t step, const Seen& seen) {
    const Row &x = seen.weights[0], &g = noise.row(step, 0);
    for (size_t p = 0; p < 10; p++)
      CHECK(x[p] - last[p] == doctest::Approx(-0.1 * g[p % 5] / norm(g)));
    last = x;
  });
}

TEST_CASE("disagreement: C' <= rho (C + lr sqrt(N k)) where steps are polar factors of rank k") {
  for (const char* graph : {"ring", "exponential", "star", "torus", "hypercube"}) {
    for (int64_t rounds : {1, 3}) {
      CAPTURE(graph);
      CAPTURE(rounds);
      HeavyTails noise(40);
      Bare bare{.settings = {{"gossip_rounds", std::to_string(rounds)}, {"momentum", "0.5"}},
                .graph = {.name = graph},
                .declared = {{"a", {5, 8}}},
                .steps = 20};
      bare.use = configured(
          "muon",
          {{"form", "plain"}, {"momentum", "0"}, {"lr", "0.1"}, {"orthogonalizer", "exact"}});
      bare.gradient = [&](int64_t step, int rank, const Tensor&, Tensor& g) {
        ops::copy(Tensor::of(noise.row(step, rank), g.shape()), g);
      };
      double rho = std::pow(report(make_topology(bare.graph, 8)).rho, double(rounds)), last = 0;
      run(bare, [&](int64_t, const Seen& seen) {
        double now = disagreement(seen.weights);
        CHECK(now <= rho * (last + 0.1 * std::sqrt(8 * 5.0)) * (1 + 1e-9));
        CHECK(now > 0);
        last = now;
      });
    }
  }
}

namespace {

const Stack kTargets = {
    {1, 0, 2, 0, 1, -1}, {0, 3, 1, 2, 0, 1}, {-1, 1, 0, 1, -2, 4}, {2, 2, -3, 0, 1, 1}};

// How far any of `nodes` is from what all want together, after 400 steps.
double error_of(const std::string& strategy, const Settings& settings, const TopologyOptions& graph,
                int nodes) {
  Stack targets;
  for (int i = 0; i < nodes; i++) targets.push_back(kTargets[size_t(i * i + i / 5) % 4]);
  Bare bare = quadratic(targets);
  bare.strategy = strategy;
  bare.settings = settings;
  bare.graph = graph;
  bare.steps = 400;
  bare.use = configured("sgd", {{"momentum", "0"}, {"lr", "0.1"}});
  Stack x = run(bare).weights;
  double largest = 0;
  for (Row& row : x) {
    row.resize(6);
    largest = std::max(largest, largest_difference(row, mean(targets)));
  }
  return largest;
}

}  // namespace

TEST_CASE("d2 and gradient tracking reach what all want together; gossip stays biased") {
  const TopologyOptions lazy = {.name = "ring", .lazy = true};
  CHECK(error_of("d2", {}, lazy, 4) < 1e-12);
  CHECK(error_of("gradient_tracking", {}, lazy, 4) < 1e-12);
  CHECK(error_of("gossip", {}, lazy, 4) > 1e-2);
}

// Not on the eigenvalues of W: rounds make a polynomial of it. On a ring of 8, with weights of
// thirds or lazy ones, the eigenvalues are 1/3 + 2/3 cos(2 pi k / 8), or half of that and a half.
TEST_CASE("what must not diverge is what mixing applies in a step, all its rounds") {
  for (bool lazy : {false, true}) {
    for (int64_t rounds : {1, 2, 3, 4, 8}) {
      for (bool chebyshev : {false, true}) {
        double rho = 0, smallest = 1;
        auto lambda = [&](int k) {
          double plain = 1 / 3. + 2 / 3. * std::cos(2 * M_PI * k / 8);
          return lazy ? (1 + plain) / 2 : plain;
        };
        for (int k = 1; k < 8; k++) rho = std::max(rho, std::fabs(lambda(k)));
        for (int k = 1; k < 8; k++) {
          double x = lambda(k) / rho, t = std::cos(double(rounds) * std::acos(x)),
                 of_1 = std::cosh(double(rounds) * std::acosh(1 / rho));
          bool fast = chebyshev && rounds > 1;
          smallest = std::min(smallest, fast ? t / of_1 : std::pow(lambda(k), double(rounds)));
        }
        CAPTURE(lazy);
        CAPTURE(rounds);
        CAPTURE(chebyshev);
        const TopologyOptions graph = {.name = "ring", .lazy = lazy};
        MixingOptions options{.rounds = rounds, .chebyshev = chebyshev};
        CHECK(*smallest_eigenvalue(make_topology(graph, 8), options) ==
              doctest::Approx(smallest).epsilon(1e-9));
        Settings settings{{"gossip_rounds", std::to_string(rounds)}};
        if (chebyshev) settings["chebyshev"] = "true";
        if (smallest > -1.0 / 3 + 1e-6) {
          CHECK(error_of("d2", settings, graph, 8) < 1e-4);
          continue;
        }
        std::string error = input_error_of([&] { error_of("d2", settings, graph, 8); });
        CHECK(contains(error, "at or below -0.3333"));
        CHECK(contains(error, "leave strategy.chebyshev out") == chebyshev);
        CHECK(contains(error, "add --lazy-weights true") == !lazy);
      }
    }
  }
  CHECK(!smallest_eigenvalue(make_topology({.name = "exponential"}, 8), {}));
  CHECK(!smallest_eigenvalue(make_topology({.name = "base2"}, 8), {}));
}

// The best constant weights of a ring of 8 have an eigenvalue of -.745.
TEST_CASE("quasi-global momentum: its bound on eigenvalues is where it begins to diverge") {
  const TopologyOptions graph = {.name = "ring", .weights = "laplacian"};
  double q = *smallest_eigenvalue(make_topology(graph, 8), {});
  CHECK(q == doctest::Approx(-0.7445).epsilon(1e-4));
  // q = -(2 - f) / (2 - f + 2 f mu) at f = 2 (1 + q) / ((1 + q) - 2 q mu)
  double edge = 2 * (1 + q) / ((1 + q) - 2 * q * 0.9);
  auto error = [&](double refresh) {
    Settings settings{{"refresh", std::to_string(refresh)}};
    return error_of("quasi_global", settings, graph, 8);
  };
  CHECK(error(edge - 0.05) < 10);
  std::string refused = input_error_of([&] { error(edge + 0.01); });
  CHECK(contains(refused, "-0.7445; add --lazy-weights true"));
}

namespace {

TopologyOptions three_nodes() {
  TopologyOptions graph = {.name = "edges", .weights = "column"};
  graph.edges = std::filesystem::temp_directory_path() / "murmur_three_nodes";
  std::ofstream(graph.edges) << "directed\n0 1\n0 2\n1 2\n2 0\n";
  return graph;
}

}  // namespace

// Columns of thirds and halves; x = (0, 3, 6) after the first update, and no gradient from then on.
TEST_CASE("push-sum: what nodes have in common is sum x / sum s, not the mean of z") {
  Bare bare{.strategy = "push_sum", .graph = three_nodes(), .nodes = 3, .steps = 3};
  bare.use = configured("sgd", {{"momentum", "0"}, {"lr", "1"}});
  bare.gradient = [](int64_t step, int rank, const Tensor& x, Tensor& g) {
    ops::fill(g, step == 1 ? -3 * rank : 0);
    if (step == 1) ops::scale(1, x, {g, true});
  };
  const Stack z = {
      {3.6, 1.8, 3.375}, {3.4411765, 2.52, 2.9387755}, {3.0976744, 2.9580420, 2.9482759}};
  run(bare, [&](int64_t step, const Seen& seen) {
    for (size_t i = 0; i < 3; i++)
      CHECK(seen.weights[i][0] == doctest::Approx(z[size_t(step) - 1][i]).epsilon(1e-7));
    for (size_t p = 0; p < 6; p++) CHECK(seen.common[p] == doctest::Approx(3).epsilon(1e-14));
  });
  CHECK(mean({{3.6}, {1.8}, {3.375}})[0] == doctest::Approx(2.925));  // what it is not
  std::filesystem::remove(bare.graph.edges);
}

// With gradients: the common model takes the mean of them, as SGD does, whatever s is.
TEST_CASE("push-sum: the common model steps by the mean gradient, also among other members") {
  for (const char* graph : {"star", "ring"}) {
    CAPTURE(graph);
    HeavyTails noise(6);
    run_ranks("threads", World{5, 60, Device::cpu}, [&](Communicator& c) {
      Threads one(1);
      auto strategy = make_strategy("push_sum");
      strategy->graph = {.name = graph, .weights = "column"};
      strategy->join(c);
      Parameters parameters;
      parameters.add("a", {2, 3}, Role::matrix, 0);
      parameters.allocate(1, DType::f64);
      std::vector<Route> routes;
      for (Role role : kRoles)
        routes.push_back({role, configured("sgd", {{"momentum", "0"}, {"lr", "0.1"}})});
      Update update(parameters, routes, 0, strategy->start(parameters, routes));
      strategy->attach(update);
      const Tensor& x = parameters.values();
      auto common = [&] { return to_vector(strategy->common(x)); };
      int64_t step = 0;
      auto train = [&](int64_t steps) {
        for (int64_t last = step + steps; step < last;) {
          Row expected = common(), sum(6);
          strategy->begin_step(++step, 1);
          for (int node : c.members()) {
            for (size_t p = 0; p < 6; p++) sum[p] += noise.row(step, node)[p];
          }
          Tensor g = parameters.gradients();
          ops::copy(Tensor::of(noise.row(step, c.node()), g.shape(), DType::f64), g);
          strategy->before_update();
          update.step(step, 1);
          strategy->after_update();
          for (size_t p = 0; p < 6; p++) expected[p] -= 0.1 * sum[p] / c.size();
          Row now = common();
          now.resize(6), expected.resize(6);
          CHECK(largest_difference(now, expected) < 1e-13);
        }
      };
      // Nobody moves when others go.
      auto change = [&](const std::vector<int>& members) {
        c.set_members(members);
        if (c.rank() < 0) return false;
        Row before = common(), own = to_vector(x);
        strategy->members_changed(false);
        CHECK(largest_difference(common(), before) < 1e-14);
        CHECK(to_vector(x) == own);
        return true;
      };
      train(4);
      if (!change({0, 1, 2, 3})) return;  // of the ring a path is left
      train(4);
      if (!change({0, 1})) return;  // rows sum to 1 again, but s is not 1
      train(4);
    });
  }
}
