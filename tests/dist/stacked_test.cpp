// Decentralised strategies beside the formulas of their publications: all nodes in one place, W a
// dense matrix, every method a few lines (tests/dist/stacked.h). Gradients are those of the model,
// at each node's own weights; optimizers are written out too, but for Muon's, which tests/optim
// has.
#include "tests/dist/stacked.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tensor/ops.h"
#include "tests/dist/ranks.h"

using namespace murmur;

namespace {

// What a node computes by itself.
class Nodes {
 public:
  Nodes(const Experiment& x, int nodes) : settings_(x.settings) {
    for (int i = 0; i < nodes; i++) {
      models_.push_back(std::make_unique<Model>(settings_.model, settings_.seed, DType::f64));
      updates_.push_back(
          std::make_unique<Update>(models_.back()->parameters, settings_.routes, settings_.clip));
    }
  }
  Stack start() const {
    Stack x;
    for (const auto& model : models_) x.push_back(to_vector(model->parameters.values()));
    return x;
  }
  Stack gradients(int64_t step, const Stack& x) {
    const GptConfig& m = settings_.model;
    int64_t batch = settings_.batch_size;
    Tensor tokens = made_up_tokens(batch, m.block_size, m.vocab_size, uint64_t(step), 1),
           targets = made_up_tokens(batch, m.block_size, m.vocab_size, uint64_t(step), 2);
    Stack g;
    int n = int(models_.size());
    for (int i = 0; i < n; i++) {
      Parameters& parameters = models_[size_t(i)]->parameters;
      write(x[size_t(i)], parameters.values());
      parameters.begin_gradients();
      int64_t begin = share_begin(batch, i, n), end = share_begin(batch, i + 1, n);
      Tape tape;
      tape.backward(
          models_[size_t(i)]->gpt.loss(tokens.slice(begin, end), targets.slice(begin, end)));
      parameters.end_gradients();
      g.push_back(to_vector(parameters.gradients()));
    }
    return g;
  }
  // x after an update of murmur's by g.
  Stack updated(int64_t step, const Stack& x, const Stack& g) {
    Stack after;
    for (size_t i = 0; i < x.size(); i++) {
      Parameters& parameters = models_[i]->parameters;
      write(x[i], parameters.values());
      write(g[i], parameters.gradients());
      updates_[i]->step(step, 1);
      after.push_back(to_vector(parameters.values()));
    }
    return after;
  }
  const Parameters& parameters() const { return models_[0]->parameters; }

 private:
  static void write(const Row& from, Tensor& to) {
    ops::copy(Tensor::of(from, to.shape(), DType::f64), to);
  }

  ReplicaSettings settings_;
  std::vector<std::unique_ptr<Model>> models_;
  std::vector<std::unique_ptr<Update>> updates_;
};

// x - u(x) ------------------------------------------------------------------------------------
using Descend = std::function<Stack(int64_t t, const Stack& x, const Stack& g)>;

Descend sgd(double lr) {
  return [=](int64_t, const Stack& x, const Stack& g) { return x - lr * g; };
}

Descend sgd_with_momentum(double lr, double mu) {
  return [=, m = Stack()](int64_t, const Stack& x, const Stack& g) mutable {
    if (m.empty()) m = zeros_like(x);
    m = mu * m + g;
    return x - lr * m;
  };
}

Descend clipped_sgd(double lr, double clip, double growth) {
  return [=](int64_t t, const Stack& x, Stack g) {
    double limit = clip * std::pow(double(t), growth);
    for (Row& row : g) {
      double factor = std::min(1.0, limit / (norm(row) + 1e-6));
      for (double& v : row) v *= factor;
    }
    return x - lr * g;
  };
}

Descend normalised(double lr) {
  return [=](int64_t, const Stack& x, Stack y) {
    for (Row& row : y) {
      double length = norm(row);
      for (double& v : row) v = length > 0 ? v / length : 0;
    }
    return x - lr * y;
  };
}

Descend sen(double lr, double momentum, double phi, double tau) {
  return [=, m = Stack()](int64_t r, const Stack& x, const Stack& g) mutable {
    if (m.empty()) m = zeros_like(x);
    double b = momentum / std::sqrt(double(r));
    for (size_t i = 0; i < x.size(); i++) {
      for (size_t p = 0; p < x[i].size(); p++) {
        double u = g[i][p] - m[i][p];
        double psi =
            phi * u / std::sqrt(u * u * double(r + 1) + tau * std::pow(double(r + 1), 1.6));
        m[i][p] = b * m[i][p] + (1 - b) * psi;
      }
    }
    return x - (lr / std::pow(double(r), 0.2)) * m;
  };
}

Descend adamw(double lr, double b1, double b2, double eps) {
  return [=, m = Stack(), v = Stack()](int64_t t, Stack x, const Stack& g) mutable {
    if (m.empty()) m = v = zeros_like(x);
    for (size_t i = 0; i < x.size(); i++) {
      for (size_t p = 0; p < x[i].size(); p++) {
        m[i][p] = b1 * m[i][p] + (1 - b1) * g[i][p];
        v[i][p] = b2 * v[i][p] + (1 - b2) * g[i][p] * g[i][p];
        double first = m[i][p] / (1 - std::pow(b1, double(t))),
               second = v[i][p] / (1 - std::pow(b2, double(t)));
        x[i][p] -= lr * first / (std::sqrt(second) + eps);
      }
    }
    return x;
  };
}

Descend of_murmur(Nodes& f) {
  return [&f](int64_t t, const Stack& x, const Stack& g) { return f.updated(t, x, g); };
}

// Methods: what they make of f, W and a way to descend in so many steps -----------------------
struct Problem {
  Nodes& f;
  const Graph& w;
  Descend descend;
  int64_t steps;
};
using Method = std::function<Stack(const Problem&)>;

Stack adapt_then_combine(const Problem& p) {
  Stack x = p.f.start();
  for (int64_t t = 1; t <= p.steps; t++) x = p.w.mixed(t, p.descend(t, x, p.f.gradients(t, x)));
  return x;
}

Stack combine_then_adapt(const Problem& p) {
  Stack x = p.f.start();
  for (int64_t t = 1; t <= p.steps; t++) {
    Stack g = p.f.gradients(t, x);
    x = p.descend(t, p.w.mixed(t, x), g);
  }
  return x;
}

Stack mixed_a_step_late(const Problem& p) {
  Stack x = p.f.start(), before = x;
  for (int64_t t = 1; t <= p.steps; t++) {
    Stack next = p.descend(t, x, p.f.gradients(t, x)) + p.w.mixed(t, before) - before;
    before = x;
    x = next;
  }
  return x;
}

// mu: of the momentum that is tracked; 0: the gradient is.
Method tracking_atc(double mu) {
  return [=](const Problem& p) {
    Stack x = p.f.start(), m = zeros_like(x), y = m;
    for (int64_t t = 1; t <= p.steps; t++) {
      Stack next = mu * m + (1 - mu) * p.f.gradients(t, x);
      y = p.w.mixed(t, y + next - m);
      m = next;
      x = p.w.mixed(t, p.descend(t, x, y));
    }
    return x;
  };
}

Method tracking_cta(double mu) {
  return [=](const Problem& p) {
    Stack x = p.f.start(), m = zeros_like(x), y = m;
    for (int64_t t = 1; t <= p.steps; t++) {
      Stack next = mu * m + (1 - mu) * p.f.gradients(t, x);
      y = p.w.mixed(t, y) + next - m;
      m = next;
      x = p.descend(t, p.w.mixed(t, x), y);
    }
    return x;
  };
}

// The tracker of a gradient, and then a momentum of it.
Method tracking_before_momentum(double mu) {
  return [=](const Problem& p) {
    Stack x = p.f.start(), before = zeros_like(x), y = before, m = before;
    for (int64_t t = 1; t <= p.steps; t++) {
      Stack g = p.f.gradients(t, x);
      y = p.w.mixed(t, y + g - before);
      before = g;
      m = mu * m + (1 - mu) * y;
      x = p.w.mixed(t, p.descend(t, x, m));
    }
    return x;
  };
}

// x <- W (2 x - x_before - lr (g - g_before)), the first step plain
Method d2_of_sgd(double lr) {
  return [=](const Problem& p) {
    Stack x = p.f.start(), g = p.f.gradients(1, x), before = x;
    x = p.w.mixed(1, x - lr * g);
    for (int64_t t = 2; t <= p.steps; t++) {
      Stack next = p.f.gradients(t, x);
      Stack to = p.w.mixed(t, 2.0 * x - before - lr * (next - g));
      before = x;
      x = to;
      g = next;
    }
    return x;
  };
}

// The same for any way u to descend.
Stack d2(const Problem& p) {
  Stack x = p.f.start(), before = x, u_before = zeros_like(x);
  for (int64_t t = 1; t <= p.steps; t++) {
    Stack u = x - p.descend(t, x, p.f.gradients(t, x));
    Stack to = p.w.mixed(t, 2.0 * x - before - (u - u_before));
    before = x;
    u_before = u;
    x = to;
  }
  return x;
}

Stack push_sum(const Problem& p) {
  Stack x = p.f.start(), z = x, s(x.size(), Row(1, 1));
  for (int64_t t = 1; t <= p.steps; t++) {
    Stack u = z - p.descend(t, z, p.f.gradients(t, z));
    x = p.w.mixed(t, x - u);
    s = p.w.mixed(t, s);
    z = x;
    for (size_t i = 0; i < z.size(); i++) {
      for (double& v : z[i]) v /= s[i][0];
    }
  }
  return z;
}

Method quasi_global(double lr, double mu, double refresh, bool nesterov) {
  return [=](const Problem& p) {
    Stack x = p.f.start(), way = zeros_like(x);
    for (int64_t t = 1; t <= p.steps; t++) {
      Stack g = p.f.gradients(t, x), m = mu * way + g;
      Stack to = p.w.mixed(t, x - lr * (nesterov ? g + mu * m : m));
      way = (1 - refresh) * way + (refresh / lr) * (x - to);
      x = to;
    }
    return x;
  };
}

// Comparison ----------------------------------------------------------------------------------
struct Case {
  std::string topology;
  int nodes;
};
const std::vector<Case> kAllGraphs = {
    {"ring", 4}, {"exponential", 5}, {"complete", 3}, {"base2", 6}, {"one_peer_hypercube", 8}};
const std::vector<Case> kStaticGraphs = {{"ring", 4}, {"exponential", 5}, {"complete", 3}};

Experiment small(const std::string& optimizer, const Settings& options, double clip = 0) {
  Experiment x(optimizer, options);
  x.settings.model = {1, 2, 12, 6, 37, Arch::gpt2, true, false};
  x.settings.clip = clip;
  x.steps = 50;
  x.graph.lazy = false;
  return x;
}

double farthest(const Outcome& outcome, const Parameters& parameters, const Stack& x) {
  double largest = 0;
  for (size_t i = 0; i < x.size(); i++) {
    for (const Parameter& p : parameters.all()) {
      std::string node = i == 0 ? "" : " of rank " + std::to_string(i);
      Row expected(x[i].begin() + p.offset, x[i].begin() + p.offset + p.shape.numel());
      largest = std::max(largest, largest_difference(outcome.weights.at(p.name + node), expected));
    }
  }
  return largest;
}

// `descend`: made anew for every run; none: murmur's own update.
void compare(Experiment x, const std::vector<Case>& graphs, const Method& method,
             const std::function<Descend()>& descend = {}) {
  Threads one(1);
  for (const auto& [topology, nodes] : graphs) {
    CAPTURE(x.strategy);
    CAPTURE(topology);
    CAPTURE(nodes);
    x.graph.name = topology;
    x.settings.batch_size = 2 * nodes;
    Nodes f(x, nodes);
    auto given = x.strategy_settings.find("gossip_rounds");
    int rounds = given == x.strategy_settings.end() ? 1 : std::stoi(given->second);
    Graph w{make_topology(x.graph, nodes), rounds};
    Stack expected = method({f, w, descend ? descend() : of_murmur(f), x.steps});
    if (topology != "complete") REQUIRE(disagreement(expected) > 1e-7);  // there was some to mix
    Outcome found = run(x, nodes);
    CHECK(farthest(found, f.parameters(), expected) < 1e-12);
  }
}

Experiment with(Experiment x, const std::string& strategy, const Settings& settings = {}) {
  x.strategy = strategy;
  x.strategy_settings = settings;
  return x;
}

}  // namespace

TEST_CASE("DSGD, adapt then combine and combine then adapt") {
  Experiment x = small("sgd", {{"momentum", "0"}, {"lr", "0.1"}});
  auto descend = [] { return sgd(0.1); };
  compare(with(x, "gossip"), kAllGraphs, adapt_then_combine, descend);
  compare(with(x, "gossip", {{"order", "cta"}}), kAllGraphs, combine_then_adapt, descend);
  compare(with(x, "gossip", {{"order", "cta"}, {"overlap", "true"}}), kAllGraphs,
          combine_then_adapt, descend);
  x.steps = 10;
  compare(with(x, "gossip", {{"gossip_rounds", "3"}}), {{"ring", 5}, {"base2", 5}},
          adapt_then_combine, descend);
}

TEST_CASE("DSGD that mixes a step late") {
  Experiment x = small("sgd", {{"momentum", "0"}, {"lr", "0.1"}});
  x.graph.lazy = true;
  compare(with(x, "gossip", {{"overlap", "true"}}), {{"ring", 4}, {"complete", 3}},
          mixed_a_step_late, [] { return sgd(0.1); });
}

TEST_CASE("DSGD_Clip: a norm that grows") {
  Experiment x = small("sgd", {{"momentum", "0"}, {"lr", "0.5"}});
  x.settings.clip = Clip(0.1, 0.4);
  compare(with(x, "gossip"), kAllGraphs, adapt_then_combine,
          [] { return clipped_sgd(0.5, 0.1, 0.4); });
}

TEST_CASE("SEN, and with other lengths of psi") {
  compare(with(small("sen", {{"lr", "0.1"}}), "gossip"), kAllGraphs, adapt_then_combine,
          [] { return sen(0.1, 0.8, 1, 1); });
  compare(with(small("sen", {{"lr", "0.1"}, {"momentum", "0.5"}, {"phi", "3"}, {"tau", "0.2"}}),
               "gossip"),
          {{"ring", 4}}, adapt_then_combine, [] { return sen(0.1, 0.5, 3, 0.2); });
}

TEST_CASE("decentralised AdamW: moments stay with their node") {
  compare(with(small("adamw", {{"lr", "0.003"}, {"weight_decay", "0"}}), "gossip"), kAllGraphs,
          adapt_then_combine, [] { return adamw(0.003, 0.9, 0.95, 1e-8); });
}

TEST_CASE("DSGT, adapt then combine and combine then adapt") {
  Experiment x = small("sgd", {{"momentum", "0"}, {"lr", "0.1"}});
  auto descend = [] { return sgd(0.1); };
  compare(with(x, "gradient_tracking"), kAllGraphs, tracking_atc(0), descend);
  for (const char* overlap : {"false", "true"})
    compare(with(x, "gradient_tracking", {{"order", "cta"}, {"overlap", overlap}}), kAllGraphs,
            tracking_cta(0), descend);
  x.steps = 10;
  compare(with(x, "gradient_tracking", {{"gossip_rounds", "2"}, {"momentum", "0.7"}}),
          {{"ring", 4}, {"base2", 5}}, tracking_atc(0.7), descend);
  compare(with(x, "gradient_tracking", {{"order", "cta"}, {"momentum", "0.7"}}), {{"ring", 4}},
          tracking_cta(0.7), descend);
}

TEST_CASE("GT-NSGDm: the momentum is tracked, the step is as long as the rate") {
  Experiment x = small("sgd", {{"momentum", "0"}, {"lr", "0.1"}});
  x.settings.clip = Clip(1, 0, true);
  compare(with(x, "gradient_tracking", {{"momentum", "0.8"}}), kAllGraphs, tracking_atc(0.8),
          [] { return normalised(0.1); });
}

TEST_CASE("DeMuon: momentum before tracking, all matrices; and tracking before momentum") {
  Experiment x = small("muon", {});
  NamedOptimizer muon = configured("muon", {{"form", "plain"}, {"momentum", "0"}, {"lr", "0.01"}}),
                 nsgd = configured("nsgd", {{"momentum", "0"}, {"lr", "0.01"}});
  x.settings.routes = default_routes(muon, nsgd, "whole", true);
  for (const Route& route : x.settings.routes)
    CHECK(route.use.name == (route.role == Role::vector ? "nsgd" : "muon"));
  compare(with(x, "gradient_tracking", {{"momentum", "0.8"}}), kAllGraphs, tracking_atc(0.8));
  Threads one(1);
  // The reference has the momentum in its own loop; murmur has it in the optimizers.
  Experiment after = x;
  NamedOptimizer later =
                     configured("muon", {{"form", "plain"}, {"momentum", "0.8"}, {"lr", "0.01"}}),
                 vectors = configured("nsgd", {{"momentum", "0.8"}, {"lr", "0.01"}});
  after.settings.routes = default_routes(later, vectors, "whole", true);
  after = with(after, "gradient_tracking");
  for (const auto& [topology, nodes] : kAllGraphs) {
    CAPTURE(topology);
    after.graph.name = topology;
    after.settings.batch_size = x.settings.batch_size = 2 * nodes;
    Nodes f(x, nodes);  // without momentum
    Graph w{make_topology(after.graph, nodes)};
    Stack expected = tracking_before_momentum(0.8)({f, w, of_murmur(f), after.steps});
    CHECK(farthest(run(after, nodes), f.parameters(), expected) < 1e-12);
  }
}

TEST_CASE("decentralised Muon and NorMuon: any optimizer, and clipping by each node's own norm") {
  for (const char* optimizer : {"muon", "normuon"}) {
    CAPTURE(optimizer);
    Experiment x = small(optimizer, {{"weight_decay", "0.1"}}, 0.5);
    x.steps = 30;
    compare(with(x, "gossip"), kAllGraphs, adapt_then_combine);
    compare(with(x, "gossip", {{"order", "cta"}}), {{"ring", 4}}, combine_then_adapt);
    compare(with(x, "gradient_tracking"), kAllGraphs, tracking_atc(0));
  }
}

TEST_CASE("D2: its published form with SGD, and with any other optimizer") {
  Experiment x = small("sgd", {{"momentum", "0"}, {"lr", "0.1"}});
  const std::vector<Case> suitable = {{"complete", 3}, {"ring", 5}, {"torus", 9}};
  compare(with(x, "d2"), suitable, d2_of_sgd(0.1));
  x.graph.lazy = true;
  compare(with(x, "d2"), {{"ring", 4}, {"hypercube", 8}}, d2_of_sgd(0.1));
  for (const char* optimizer : {"adamw", "muon"}) {
    Experiment y = small(optimizer, {}, 0.5);
    y.steps = 30;
    compare(with(y, "d2"), {{"complete", 3}, {"ring", 5}}, d2);
  }
}

TEST_CASE("stochastic gradient push: directed graphs, and columns that alone sum to 1") {
  Experiment x = small("sgd", {{"momentum", "0.9"}, {"lr", "0.05"}});
  auto descend = [] { return sgd_with_momentum(0.05, 0.9); };
  std::vector<Case> graphs = kAllGraphs;
  graphs.push_back({"one_peer_exponential", 5});
  compare(with(x, "push_sum"), graphs, push_sum, descend);
  x.graph.weights = "column";
  compare(with(x, "push_sum"), {{"star", 4}, {"path", 5}, {"exponential", 5}}, push_sum, descend);
  x.graph.edges = std::filesystem::temp_directory_path() / "murmur_push_sum_edges";
  std::ofstream(x.graph.edges) << "directed\n0 1\n0 2\n1 2\n2 3\n3 0\n3 1\n";
  compare(with(x, "push_sum"), {{"edges", 4}}, push_sum, descend);
  compare(with(x, "push_sum", {{"gossip_rounds", "2"}}), {{"edges", 4}}, push_sum, descend);
  std::filesystem::remove(x.graph.edges);
}

TEST_CASE("QG-DSGDm, with and without looking ahead") {
  Experiment x = small("sgd", {{"momentum", "0"}, {"lr", "0.05"}});
  compare(with(x, "quasi_global"), kAllGraphs, quasi_global(0.05, 0.9, 0.1, false));
  compare(with(x, "quasi_global", {{"nesterov", "true"}, {"momentum", "0.8"}, {"refresh", "0.3"}}),
          kAllGraphs, quasi_global(0.05, 0.8, 0.3, true));
}
