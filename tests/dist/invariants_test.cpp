// What stays true in decentralised training whatever the strategy, the graph and the optimizer; and
// the errors that say what does not go together.
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tests/dist/nodes.h"

using namespace murmur;

TEST_CASE("a node alone trains what the optimizer alone trains, to the bit") {
  Threads one(1);
  for (const OptimizerEntry& entry : optimizer_list()) {
    CAPTURE(entry.name);
    Experiment x = small(entry.name);
    Outcome alone = run(x, 1, "self");
    for (const std::string& strategy : decentralised()) {
      CAPTURE(strategy);
      CHECK(distance(alone, run(with(x, strategy, without_memory(strategy)), 1)) == 0);
    }
  }
  Experiment x = small("muon");
  Outcome alone = run(x, 1, "self");
  for (const Settings& settings :
       {Settings{{"order", "cta"}}, {{"overlap", "true"}}, {{"wire", "int8"}}, {{"keep", "0.1"}}})
    CHECK(distance(alone, run(with(x, "gossip", settings), 1)) == 0);
  CHECK(distance(alone, run(with(x, "gradient_tracking", {{"order", "cta"}}), 1)) == 0);
}

TEST_CASE("everybody with the same data: every node is the run of one node") {
  for (const char* optimizer : {"adamw", "muon"}) {
    Experiment x = small(optimizer);
    x.shares = {0, 0, 0, 0};
    Outcome alone = run(with(x, "local"), 4);
    for (const char* graph : {"ring", "exponential", "star", "one_peer_hypercube"}) {
      for (const std::string& strategy : decentralised()) {
        bool fixed = std::string(graph) == "ring" || std::string(graph) == "star";
        if (strategy == "d2" && !fixed) continue;
        CAPTURE(optimizer);
        CAPTURE(graph);
        CAPTURE(strategy);
        Experiment y = with(x, strategy, without_memory(strategy));
        y.graph.name = graph;
        CHECK(distance(alone, run(y, 4)) < 1e-13);
      }
    }
  }
}

TEST_CASE("complete graph: nodes stay identical, and are the optimizer on the mean gradient") {
  for (const char* optimizer : {"muon", "normuon", "adamw"}) {
    CAPTURE(optimizer);
    Experiment x = small(optimizer);
    x.settings.clip = 0;
    x.graph.name = "complete";
    Experiment central = x;
    central.strategy = "all_reduce";
    Outcome expected = run(central, 4);
    Stack nodes = trained(with(x, "gradient_tracking"), 4);
    Row all;
    for (const auto& [name, w] : expected.weights) all.insert(all.end(), w.begin(), w.end());
    for (const Row& node : nodes) CHECK(largest_difference(node, all) < 1e-12);
    CHECK(disagreement(nodes) < 1e-13);
    for (const std::string& strategy : decentralised()) {
      CAPTURE(strategy);
      Experiment y = with(x, strategy);
      y.graph.lazy = false;  // W is J
      CHECK(disagreement(trained(y, 4)) < 1e-13);
    }
  }
}

TEST_CASE("every decentralised strategy goes with every optimizer: finite, and the same bits") {
  for (const std::string& strategy : decentralised()) {
    for (const OptimizerEntry& entry : optimizer_list()) {
      CAPTURE(strategy);
      CAPTURE(entry.name);
      Experiment x = with(small(entry.name), strategy);
      x.steps = 5;
      x.settings.activations = entry.name == "muon" ? DType::bf16 : DType::f32;
      Outcome once = run(x, 4), again = run(x, 4);
      CHECK(distance(once, again) == 0);
      for (const auto& [name, w] : once.weights) {
        for (double v : w) REQUIRE(std::isfinite(v));
      }
      CHECK(disagreement(rows_of(once, 4)) > 0);  // nodes are not one
    }
  }
}

TEST_CASE("nodes under other names: the result is permuted with them") {
  const int nodes = 5;
  const std::vector<std::array<int, 2>> edges = {{0, 1}, {1, 2}, {2, 3}, {3, 4}, {4, 0}, {0, 2}};
  const std::vector<int> renamed = {3, 0, 4, 1, 2};
  auto path = (std::filesystem::temp_directory_path() / "murmur_renamed_edges").string();
  auto result = [&](Experiment x, bool rename) {
    std::ofstream file(path);
    auto name = [&](int node) { return rename ? renamed[size_t(node)] : node; };
    for (auto [a, b] : edges) file << name(a) << " " << name(b) << "\n";
    file.close();
    x.graph.name = "edges";
    x.graph.edges = path;
    x.shares.resize(nodes);
    for (int node = 0; node < nodes; node++) x.shares[size_t(name(node))] = node;
    return trained(x, nodes);
  };
  for (const std::string& strategy : decentralised()) {
    for (const Settings& settings : {Settings{}, {{"wire", "int8"}}}) {
      CAPTURE(strategy);
      Experiment x = with(small("normuon"), strategy, settings);
      x.settings.batch_size = 10;
      x.graph.lazy = true;
      Stack plain = result(x, false), permuted = result(x, true);
      // int8 rounds to another side where sums differ in their last bits.
      double bar = settings.empty() ? 1e-12 : 1e-3;
      for (int node = 0; node < nodes; node++)
        CHECK(largest_difference(plain[size_t(node)], permuted[size_t(renamed[size_t(node)])]) <
              bar);
    }
  }
  std::filesystem::remove(path);
}

TEST_CASE("mix_state: NorMuon's second moments are mixed with the weights, and nothing else is") {
  const int nodes = 4;
  auto states = [&](const Settings& settings, const std::string& strategy = "gossip") {
    Experiment x = with(small("normuon"), strategy, settings);
    x.graph.name = "complete";
    std::map<std::string, Stack> of;
    std::mutex mutex;
    run(x, nodes, "threads", [&](Replica& replica, Communicator& c) {
      std::lock_guard lock(mutex);
      for (const Update::NamedState& s : replica.update.named_state()) {
        Stack& stack = of[s.name];
        stack.resize(nodes);
        stack[size_t(c.rank())] = to_vector(s.tensor);
      }
    });
    return of;
  };
  for (const auto& [strategy, more] :
       {std::pair<std::string, Settings>{"gossip", {}},
        {"gossip", {{"order", "cta"}}},
        {"gossip", {{"order", "cta"}, {"overlap", "true"}}},
        {"gossip", {{"wire", "int8"}}},
        {"gossip", {{"gossip_rounds", "4"}, {"chebyshev", "true"}}},
        {"gradient_tracking", {}},
        {"gradient_tracking", {{"order", "cta"}, {"overlap", "true"}}},
        {"quasi_global", {}}}) {
    CAPTURE(strategy);
    Settings settings = more;
    auto apart = states(settings, strategy);
    settings["mix_state"] = "v";
    auto mixed = states(settings, strategy);
    REQUIRE(mixed.size() == apart.size());
    bool last = !more.count("order");  // then mixed after the last update, and equal
    double of_mixed = 0, of_apart = 0;
    for (const auto& [name, stack] : mixed) {
      CAPTURE(name);
      double length = norm(mean(stack)) * 2;
      if (name.ends_with(".v")) {
        if (last) CHECK(disagreement(stack) <= 1e-12 * length);
        of_mixed += disagreement(stack);
        of_apart += disagreement(apart.at(name));
        for (const Row& row : stack) {
          for (double v : row) REQUIRE(v >= 0);
        }
      } else {
        CHECK(disagreement(stack) > 0);
      }
    }
    CHECK(of_mixed < 0.5 * of_apart);
  }
  Experiment x = with(small("muon"), "gossip", {{"mix_state", "nonsense"}});
  CHECK_THROWS_WITH_AS(run(x, 2), doctest::Contains("no optimizer of this run has a state"),
                       InputError);
}

// The best constant weights of a star give its centre less than nothing of what it has.
TEST_CASE("mix_state: second moments stay above 0, or the weights are refused") {
  auto least = [](const TopologyOptions& graph, const std::string& wire) {
    Experiment x = with(small("adamw"), "gossip", {{"mix_state", "v"}, {"wire", wire}});
    x.graph = graph;
    x.steps = 6;
    double smallest = INFINITY;
    std::mutex mutex;
    run(x, 4, "threads", [&](Replica& replica, Communicator&) {
      std::lock_guard lock(mutex);
      for (const Update::NamedState& s : replica.update.named_state()) {
        if (!s.name.ends_with(".v")) continue;
        for (double v : to_vector(s.tensor)) smallest = std::min(smallest, v);
      }
    });
    return smallest;
  };
  std::string error = input_error_of([&] { least({"star", "laplacian"}, "fp32"); });
  CHECK(contains(error, "strategy.mix_state"));
  CHECK(contains(error, "--lazy-weights true"));
  CHECK(least({.name = "star", .weights = "laplacian", .lazy = true}, "fp32") >= 0);
  CHECK(least({.name = "star"}, "bf16") >= 0);
}

TEST_CASE("compressed weights: int8 trains as well as fp32, and the nodes come together") {
  auto last_loss = [](const Settings& settings) {
    Experiment x = with(small("adamw", {{"lr", "0.01"}}), "gossip", settings);
    x.steps = 40;
    Outcome outcome = run(x, 8);
    return std::pair(outcome.losses.back() / 8, disagreement(rows_of(outcome, 8)));
  };
  auto [loss, apart] = last_loss({});
  for (const Settings& settings : {Settings{{"wire", "bf16"}}, {{"wire", "int8"}}}) {
    auto [l, a] = last_loss(settings);
    CHECK(l == doctest::Approx(loss).epsilon(0.01));
    CHECK(a == doctest::Approx(apart).epsilon(0.1));
  }
  auto [l, a] = last_loss({{"keep", "0.2"}, {"gamma", "0.3"}});
  CHECK(l == doctest::Approx(loss).epsilon(0.1));
  CHECK(a < 10 * apart);
}

TEST_CASE("plans hold for every decentralised strategy on any graph and wire") {
  for (const std::string& strategy : decentralised()) {
    for (const char* graph : {"star", "exponential", "one_peer_exponential", "base2", "complete"}) {
      for (const Settings& settings : {Settings{},
                                       {{"wire", "bf16"}},
                                       {{"wire", "int8"}, {"mix_state", "v"}},
                                       {{"keep", "0.1"}},
                                       {{"gossip_rounds", "2"}},
                                       {{"mix_state", "v"}}}) {
        const int nodes = 6;
        Experiment x = with(small("normuon"), strategy, settings);
        x.settings.batch_size = nodes;
        x.graph.name = graph;
        bool column = strategy == "push_sum" && std::string(graph) == "star";
        if (column) x.graph.weights = "column";
        Topology topology = make_topology(x.graph, nodes);
        bool replicas = settings.count("keep") || (settings.count("wire") && settings.size() == 2);
        if (replicas && (topology.rounds() > 1 || column)) continue;
        if (settings.count("mix_state") && column) continue;
        bool plain = topology.rounds() == 1 && !topology.directed() && !settings.count("keep");
        if (strategy == "d2" && !plain) continue;
        CAPTURE(strategy);
        CAPTURE(graph);
        for (const auto& [key, value] : settings) CAPTURE(key + "=" + value);
        auto made = make_strategy(strategy);
        configure(*made, strategy, settings);
        made->graph = x.graph;
        x.steps = made->period(nodes);
        Model model(x.settings.model, 0, DType::f64);
        std::vector<const Route*> routes =
            assign_routes(x.settings.routes, model.parameters.banks());
        Plan plan = made->plan(model.parameters.banks(), routes, DType::f64, nodes);
        int64_t rounds = 0;
        std::mutex mutex;
        Outcome outcome = run(x, nodes, "threads", [&](Replica&, Communicator& c) {
          int64_t mine = 0;
          for (const auto& [kind, traffic] : c.traffic()) mine += traffic.rounds;
          std::lock_guard lock(mutex);
          rounds = std::max(rounds, mine);
        });
        Traffic sent;
        for (const auto& [kind, traffic] : outcome.traffic) {
          std::vector<std::string> kinds = made->kinds();
          CHECK(std::find(kinds.begin(), kinds.end(), kind) != kinds.end());
          sent += traffic;
        }
        auto of_period = [&](double each) { return std::llround(each * double(x.steps)); };
        CHECK(of_period(plan.bytes) == sent.bytes);
        CHECK(of_period(plan.messages) == sent.messages);
        CHECK(of_period(plan.rounds) == rounds);
        CHECK(std::llround(plan.state_bytes) == outcome.state_bytes[0] + outcome.strategy_bytes[0]);
      }
    }
  }
}

TEST_CASE("what does not go together is said in one line, and nothing else is refused") {
  struct Wrong {
    const char *strategy, *topology, *weights;
    Settings settings;
    const char* says;
    bool lazy = false;
  };
  auto attempt = [](const Wrong& wrong, int nodes) {
    Experiment x = small("muon");
    x.settings.batch_size = nodes;
    x.strategy = wrong.strategy;
    x.strategy_settings = wrong.settings;
    x.graph = {.name = wrong.topology, .weights = wrong.weights, .lazy = wrong.lazy};
    x.steps = 1;
    return input_error_of([&] { run(x, nodes); });
  };
  const Settings replicas = {{"wire", "int8"}}, few = {{"keep", "0.1"}},
                 fast = {{"chebyshev", "true"}, {"gossip_rounds", "4"}},
                 overlap = {{"overlap", "true"}};
  for (const Wrong& wrong : std::vector<Wrong>{
           {"d2", "ring", "auto", {}, "-0.3333; add --lazy-weights true"},
           {"d2", "exponential", "auto", {}, "static, symmetric"},
           {"d2", "base2", "auto", {}, "static, symmetric"},
           {"d2", "ring", "auto", few, "strategy.keep", true},
           {"gossip", "exponential", "auto", fast, "static, symmetric topology"},
           {"gossip", "one_peer_hypercube", "auto", fast, "static, symmetric topology"},
           {"gossip", "one_peer_hypercube", "auto", replicas, "stays the same"},
           {"gradient_tracking", "base2", "auto", replicas, "stays the same"},
           {"gossip", "base2", "auto", few, "stays the same"},
           {"gossip",
            "ring",
            "auto",
            {{"keep", "0.1"}, {"wire", "bf16"}},
            "leave strategy.wire out"},
           {"gossip", "ring", "auto", {{"wire", "int8"}, {"chebyshev", "true"}}, "replicas"},
           {"gossip", "star", "column", {}, "push_sum"},
           {"gradient_tracking", "star", "column", {}, "push_sum"},
           {"quasi_global", "star", "column", {}, "push_sum"},
           {"d2", "star", "column", {}, "push_sum"},
           {"push_sum", "star", "column", replicas, "doubly stochastic"},
           {"push_sum", "star", "column", few, "doubly stochastic"},
           {"push_sum", "star", "column", {{"mix_state", "momentum"}}, "doubly stochastic"},
           {"gossip", "ring", "auto", overlap, "--lazy-weights true"},
           {"gossip", "exponential", "auto", overlap, "static symmetric"},
           {"gossip", "base2", "auto", overlap, "static symmetric"},
           {"gossip",
            "ring",
            "auto",
            {{"overlap", "true"}, {"gossip_rounds", "2"}},
            "one gossip round"},
           {"gossip", "ring", "auto", {{"overlap", "true"}, {"wire", "int8"}}, "one gossip round"},
           {"gradient_tracking", "ring", "auto", overlap, "strategy.order cta"},
           {"gradient_tracking",
            "ring",
            "auto",
            {{"overlap", "true"}, {"order", "cta"}, {"gossip_rounds", "2"}},
            "one gossip round"}}) {
    CAPTURE(wrong.strategy);
    CAPTURE(wrong.topology);
    CAPTURE(wrong.says);
    std::string error = attempt(wrong, 4);
    CHECK(contains(error, wrong.says));
    CHECK(!contains(error, "\n"));
  }
  for (const Wrong& right : std::vector<Wrong>{
           {"d2", "ring", "auto", {}, "", true},
           {"d2", "ring", "auto", {{"gossip_rounds", "2"}}, ""},
           {"d2", "ring", "auto", replicas, "", true},
           {"gossip", "ring", "auto", overlap, "", true},
           {"gossip", "base2", "auto", {{"overlap", "true"}, {"order", "cta"}}, ""},
           {"gossip", "exponential", "auto", replicas, ""},
           {"gossip", "base2", "auto", {{"wire", "bf16"}}, ""},
           {"gossip", "star", "auto", fast, ""},
           {"gradient_tracking", "ring", "auto", {{"overlap", "true"}, {"order", "cta"}}, ""},
           {"push_sum", "star", "column", {{"wire", "bf16"}}, ""},
           {"push_sum", "ring", "auto", replicas, ""}}) {
    CAPTURE(right.strategy);
    CAPTURE(right.topology);
    CHECK(attempt(right, 4) == "");
  }
  // A share that is larger than the others' would count no more than they do.
  Experiment uneven = small("muon");
  uneven.settings.batch_size = 12;
  for (const StrategyEntry& entry : strategy_list()) {
    CAPTURE(entry.name);
    uneven.strategy = entry.name;
    uneven.steps = 1;
    std::string error = input_error_of([&] { run(uneven, 5); });
    bool refused = contains(error, "batch_size: 12 sequences") && contains(error, "use 10 or 15");
    CHECK(refused == entry.make()->own_weights());
    CHECK(error.empty() == !refused);
  }
  // Where an advice is given, it helps: a ring of odd size needs no lazy weights, nor does one
  // node.
  CHECK(attempt({"d2", "ring", "auto", {}, ""}, 5) == "");
  CHECK(attempt({"gossip", "ring", "auto", overlap, ""}, 1) == "");
}
