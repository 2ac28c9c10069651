// The same run on any number of ranks, whatever they divide.
#include <algorithm>
#include <cmath>

#include "dist/collect.h"
#include "dist/collectives.h"
#include "tensor/ops.h"
#include "tests/dist/ranks.h"

using namespace murmur;

namespace {

// Strategies that train what one rank trains: all but those with weights of their own.
std::vector<std::string> exact_strategies() {
  std::vector<std::string> names;
  for (const StrategyEntry& entry : strategy_list()) {
    if (!entry.make()->own_weights()) names.push_back(entry.name);
  }
  return names;
}

// Of the length of `b`, relative to it.
double relative_distance(const Outcome& a, const Outcome& b) {
  double difference = 0, length = 0;
  for (const auto& [name, x] : a.weights) {
    const std::vector<double>& y = b.weights.at(name);
    for (size_t i = 0; i < x.size(); i++) {
      difference += (x[i] - y[i]) * (x[i] - y[i]);
      length += y[i] * y[i];
    }
  }
  return std::sqrt(difference / length);
}

}  // namespace

TEST_CASE("any strategy on any number of ranks trains the model one rank trains") {
  REQUIRE(exact_strategies().size() >= 3);
  for (std::string optimizer : {"adamw", "muon", "normuon"}) {
    Experiment x(optimizer);
    Outcome alone = run(x, 1, "self");
    for (const std::string& strategy : exact_strategies()) {
      for (int ranks : {1, 2, 3, 4, 8}) {
        CAPTURE(optimizer);
        CAPTURE(strategy);
        CAPTURE(ranks);
        x.strategy = strategy;
        Outcome together = run(x, ranks);
        CHECK(distance(alone, together) < 1e-12);
        for (size_t i = 0; i < alone.losses.size(); i++)
          CHECK(std::abs(together.losses[i] - alone.losses[i]) < 1e-11);
      }
    }
  }
}

TEST_CASE("every optimizer of the list goes with every strategy, without knowing of it") {
  for (const OptimizerEntry& entry : optimizer_list()) {
    Experiment x(entry.name, {{"weight_decay", "0.1"}});
    x.steps = 4;
    x.settings.model.bias = false;  // a key's bias has gradient 0, of which Lion takes the sign
    Outcome alone = run(x, 1, "self");
    for (const std::string& strategy : exact_strategies()) {
      CAPTURE(entry.name);
      CAPTURE(strategy);
      x.strategy = strategy;
      Outcome together = run(x, 3);
      // Where its statistics have null spaces, SOAP's basis turns over rounding errors of the sum.
      CHECK(distance(alone, together) < (entry.name == "soap" ? 1e-6 : 1e-10));
    }
  }
}

TEST_CASE("every strategy of the list repeats to the bit, and has a mean to use") {
  for (const StrategyEntry& entry : strategy_list()) {
    for (int ranks : {1, 3}) {
      CAPTURE(entry.name);
      CAPTURE(ranks);
      Experiment x("muon");
      x.strategy = entry.name;
      x.steps = 5;
      std::map<int, double> sums;
      std::mutex mutex;
      auto see = [&](Replica& replica, Communicator& c) {
        replica.with_weights_to_use([&] {
          Tensor tokens = made_up_tokens(2, 6, 37, 1, 1);
          NoGrad quiet;
          double loss = item(replica.model.gpt.loss(tokens, tokens).value());
          std::lock_guard lock(mutex);
          sums[c.rank()] = loss;
        });
      };
      Outcome once = run(x, ranks, "threads", see), again = run(x, ranks);
      CHECK(distance(once, again) == 0);
      CHECK(once.losses == again.losses);
      CHECK(std::isfinite(sums[0]));
      for (auto [rank, loss] : sums) CHECK(loss == doctest::Approx(sums[0]).epsilon(1e-12));
    }
  }
}

TEST_CASE("forms, row blocks, clipped scores and averaged weights are divided as well") {
  struct Case {
    std::string optimizer;
    Settings settings;
    std::string row_blocks = "whole";
  };
  for (const Case& each :
       {Case{"normuon", {{"form", "shape"}}}, Case{"normuon", {{"form", "code"}}, "qkv"},
        Case{"muon", {{"form", "moonlight"}}, "head"}, Case{"muon", {{"qk_clip", "0.001"}}},
        Case{"muonclip", {{"qk_clip", "0.01"}}, "qkv"},
        Case{"muon", {{"cautious_decay", "true"}, {"weight_decay", "0.2"}}}}) {
    Experiment x(each.optimizer, each.settings);
    for (Route& route : x.settings.routes) {
      if (route.role == Role::matrix) route.row_blocks = each.row_blocks;
    }
    x.steps = 5;
    Outcome alone = run(x, 1, "self");
    for (const std::string& strategy : exact_strategies()) {
      CAPTURE(each.optimizer);
      CAPTURE(each.row_blocks);
      CAPTURE(strategy);
      x.strategy = strategy;
      CHECK(distance(alone, run(x, 4)) < 1e-12);
    }
  }
}

TEST_CASE("any split of a batch over ranks and micro-batches trains the same model") {
  Experiment x("normuon");
  x.steps = 6;
  Outcome alone = run(x, 1, "self");
  for (const std::string& strategy : exact_strategies()) {
    for (auto [ranks, micro] : {std::pair{1, 4}, {1, 9}, {2, 3}, {3, 2}, {4, 2}}) {
      CAPTURE(strategy);
      CAPTURE(ranks);
      CAPTURE(micro);
      x.strategy = strategy;
      x.settings.accumulation = micro;
      CHECK(distance(alone, run(x, ranks)) < 1e-12);
    }
  }
  x.settings.accumulation = 5;
  CHECK_THROWS_WITH_AS(run(x, 2), doctest::Contains("at least 10"), InputError);
}

TEST_CASE("in fp32 the ranks agree to 1e-5, in bf16 to rounding; runs repeat to the bit") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (std::string optimizer : {"adamw", "normuon"}) {
      Settings settings;
      if (optimizer == "normuon") settings["ns_dtype"] = "fp32";
      Experiment x(optimizer, settings, dtype);
      Outcome alone = run(x, 1, "self");
      for (const std::string& strategy : exact_strategies()) {
        CAPTURE(optimizer);
        CAPTURE(strategy);
        CAPTURE(int(dtype));
        x.strategy = strategy;
        Outcome together = run(x, 3);
        CHECK(relative_distance(together, alone) < (dtype == DType::f32 ? 1e-5 : 2e-2));
        CHECK(distance(together, run(x, 3)) == 0);
      }
    }
  }
}

TEST_CASE("ring and tree train the same as direct, and each repeats to the bit") {
  Experiment x("muon");
  x.steps = 5;
  Outcome alone = run(x, 1, "self");
  for (const StrategyEntry& entry : strategy_list()) {
    auto strategy = entry.make();
    for (const Option& option : strategy->options()) {
      if (option.name != "collectives") continue;
      for (const std::string& name : option.choices) {
        for (int ranks : {2, 3, 5, 8}) {
          CAPTURE(entry.name);
          CAPTURE(name);
          CAPTURE(ranks);
          x.strategy = entry.name;
          x.strategy_settings = {{"collectives", name}};
          Outcome together = run(x, ranks);
          CHECK(distance(alone, together) < 1e-12);
          CHECK(distance(together, run(x, ranks)) == 0);
        }
      }
    }
  }
}

TEST_CASE("fsdp keeps an N-th of everything; sharded an N-th of the state") {
  Experiment x("normuon");
  x.steps = 1;
  x.settings.model = {2, 2, 64, 8, 64, Arch::gpt2, true, false};
  auto largest = [](const std::vector<int64_t>& bytes) {
    return double(*std::max_element(bytes.begin(), bytes.end()));
  };
  Outcome alone = run(x, 1, "self");
  for (int ranks : {2, 4, 8}) {
    CAPTURE(ranks);
    x.strategy = "fsdp";
    Outcome divided = run(x, ranks);
    CHECK(largest(divided.flat_bytes) * ranks < 1.15 * largest(alone.flat_bytes));  // padding
    CHECK(largest(divided.state_bytes) * ranks < 1.15 * largest(alone.state_bytes));
    x.strategy = "sharded";
    divided = run(x, ranks);
    CHECK(largest(divided.flat_bytes) == largest(alone.flat_bytes));
    double all = 0;
    for (int64_t bytes : divided.state_bytes) all += double(bytes);
    CHECK(all == largest(alone.state_bytes));
  }
}

TEST_CASE("between steps fsdp holds no whole weights, and steps do not grow") {
  Experiment x("muon");
  x.strategy = "fsdp";
  std::vector<int64_t> held;
  for (int64_t steps : {2, 5}) {
    x.steps = steps;
    run(x, 1, "threads", [&](Replica& replica, Communicator&) {
      int64_t before = memory_stats().bytes_in_use, whole = 0;
      held.push_back(before);
      for (const Parameters::Whole& w : replica.model.parameters.wholes()) {
        for (const Tensor& x : {w.used, w.gradient}) {
          x.take_memory_again();
          whole += int64_t(x.bytes());
        }
      }
      CHECK(memory_stats().bytes_in_use >= before + whole);  // nothing was there
      for (const Parameters::Whole& w : replica.model.parameters.wholes()) {
        w.used.give_back_memory();
        w.gradient.give_back_memory();
      }
      CHECK(memory_stats().bytes_in_use == before);
    });
  }
  CHECK(held[0] == held[1]);
}

// One process, plain loops, no strategy: H steps on every part, then the outer step.
TEST_CASE("local_sgd is DiLoCo: beside runs of single ranks and an outer step by hand") {
  for (auto [lr, momentum, nesterov] :
       {std::tuple{1.0, 0.0, false}, {0.7, 0.9, true}, {0.5, 0.8, false}}) {
    const int ranks = 3, inner = 4, rounds = 3;
    Experiment x("adamw");
    x.strategy = "local_sgd";
    x.steps = inner * rounds;
    x.strategy_settings = {{"inner_steps", std::to_string(inner)},
                           {"outer_lr", std::to_string(lr)},
                           {"outer_momentum", std::to_string(momentum)},
                           {"nesterov", nesterov ? "true" : "false"}};
    Outcome together = run(x, ranks);

    std::vector<std::unique_ptr<Model>> models;
    std::vector<std::unique_ptr<Update>> updates;
    for (int r = 0; r < ranks; r++) {
      models.push_back(std::make_unique<Model>(x.settings.model, x.settings.seed, DType::f64));
      updates.push_back(
          std::make_unique<Update>(models.back()->parameters, x.settings.routes, x.settings.clip));
    }
    std::vector<double> outer = to_vector(models[0]->parameters.values()), u(outer.size());
    for (int64_t step = 1; step <= x.steps; step++) {
      const GptConfig& m = x.settings.model;
      Tensor tokens = made_up_tokens(9, m.block_size, m.vocab_size, uint64_t(step), 1),
             targets = made_up_tokens(9, m.block_size, m.vocab_size, uint64_t(step), 2);
      for (size_t r = 0; r < ranks; r++) {
        models[r]->parameters.begin_gradients();
        Tape tape;
        tape.backward(models[r]->gpt.loss(tokens.slice(int64_t(r) * 3, int64_t(r) * 3 + 3),
                                          targets.slice(int64_t(r) * 3, int64_t(r) * 3 + 3)));
        models[r]->parameters.end_gradients();
        updates[r]->step(step, 1);
      }
      if (step % inner != 0) continue;
      std::vector<double> way(outer.size());
      for (auto& model : models) {
        std::vector<double> w = to_vector(model->parameters.values());
        for (size_t i = 0; i < w.size(); i++) way[i] += (outer[i] - w[i]) / ranks;
      }
      for (size_t i = 0; i < way.size(); i++) {
        u[i] = momentum * u[i] + way[i];
        outer[i] -= lr * (nesterov ? way[i] + momentum * u[i] : u[i]);
      }
      for (auto& model : models) {
        Tensor all = Tensor::of(outer, {int64_t(outer.size())}, DType::f64);
        ops::copy(all, model->parameters.values());
      }
    }
    const Parameters& expected = models[0]->parameters;
    for (const Parameter& p : expected.all()) {
      std::vector<double> w = to_vector(expected.value(p));
      for (size_t i = 0; i < w.size(); i++)
        REQUIRE(std::abs(w[i] - together.weights.at(p.name)[i]) < 1e-12);
    }
  }
}

TEST_CASE("what ranks hold can be put together, and read by any other division") {
  Experiment x("normuon");
  x.steps = 3;
  auto pieces_of = [](Replica& replica) {
    std::vector<Piece> pieces;
    for (const Parameter& p : replica.model.parameters.all()) {
      int64_t begin = p.shape.rank() == 1 ? 0 : p.first_row * p.shape.cols();
      pieces.push_back({p.name, p.shape, begin, replica.model.parameters.value(p)});
    }
    for (const Update::NamedState& s : replica.update.named_state())
      pieces.push_back({s.name, s.whole, s.begin, s.tensor});
    return pieces;
  };
  std::map<std::string, std::vector<double>> first;  // of one rank
  std::map<std::string, Tensor> saved;
  run(x, 1, "self", [&](Replica& replica, Communicator& c) {
    for (Collected& one : collect(c, pieces_of(replica))) first[one.name] = to_vector(one.tensor);
  });
  for (const std::string& strategy : exact_strategies()) {
    for (int ranks : {2, 3, 8}) {
      CAPTURE(strategy);
      CAPTURE(ranks);
      x.strategy = strategy;
      run(x, ranks, "threads", [&](Replica& replica, Communicator& c) {
        std::vector<Collected> all = collect(c, pieces_of(replica));
        REQUIRE(all.size() == (c.rank() == 0 ? first.size() : 0));
        for (Collected& one : all) {
          std::vector<double> values = to_vector(one.tensor);
          REQUIRE(values.size() == first.at(one.name).size());
          for (size_t i = 0; i < values.size(); i++)
            REQUIRE(std::abs(values[i] - first.at(one.name)[i]) < 1e-12);
        }
        // And back: everybody forgets, then gets what one rank had.
        std::vector<Piece> pieces = pieces_of(replica);
        for (Piece& p : pieces) {
          if (p.tensor.numel() > 0) ops::fill(p.tensor, -1);
        }
        auto find = [&](const std::string& name, const Shape& whole) {
          return Tensor::of(first.at(name), whole, DType::f64);
        };
        std::set<std::string> names = distribute(c, find, pieces);
        if (c.rank() == 0) REQUIRE(names.size() == first.size());
        for (const Piece& p : pieces) {
          std::vector<double> values = to_vector(p.tensor);
          for (size_t i = 0; i < values.size(); i++)
            REQUIRE(values[i] == first.at(p.name)[size_t(p.begin) + i]);
        }
      });
    }
  }
}

TEST_CASE("nodes of a graph hold their own state and nothing of others, however many they are") {
  Experiment x("muon", {}, DType::f32);
  x.strategy = "gradient_tracking";
  x.settings.batch_size = 64;
  x.steps = 3;
  std::map<int, double> held;  // bytes a node, between steps
  for (int nodes : {4, 16, 64}) {
    int64_t before = memory_stats().bytes_in_use;
    run(x, nodes, "threads", [&](Replica&, Communicator& c) {
      c.barrier();
      if (c.rank() == 0) held[nodes] = double(memory_stats().bytes_in_use - before) / double(nodes);
      c.barrier();
    });
  }
  // Weights, gradients, tracker, what is tracked, momentum; AdamW's two for part of them.
  Experiment one = x;
  Outcome alone = run(one, 1, "self");
  double own = double(alone.flat_bytes[0]) * 4 + double(alone.state_bytes[0]);
  for (auto [nodes, bytes] : held) {
    CAPTURE(nodes);
    CHECK(bytes < 1.25 * own + 200000);  // batches, slabs, messages just received
    CHECK(bytes < 1.1 * held[4]);
  }
}
