// What a strategy foresees is what it sends, to the byte; and what the tables say of its scheme.
#include <algorithm>
#include <cmath>
#include <set>

#include "dist/ownership.h"
#include "tests/dist/ranks.h"

using namespace murmur;

namespace {

// Names of the strategies that send anything.
std::vector<std::string> strategies() {
  std::vector<std::string> names;
  for (const StrategyEntry& entry : strategy_list()) {
    if (!entry.make()->kinds().empty()) names.push_back(entry.name);
  }
  return names;
}

std::unique_ptr<Strategy> strategy_of(const Experiment& x) {
  auto strategy = make_strategy(x.strategy);
  configure(*strategy, x.strategy, x.strategy_settings);
  strategy->graph = x.graph;
  return strategy;
}

// Where a strategy exchanges now and then: every other step.
Settings short_period(const std::string& strategy) {
  for (const Option& option : make_strategy(strategy)->options())
    if (option.name == "inner_steps") return {{"inner_steps", "2"}};
  return {};
}

// Banks of a model of which nothing is allocated, with their routes.
struct Shapes {
  Model model;
  std::vector<const Route*> routes;
  explicit Shapes(const ReplicaSettings& s)
      : model(s.model, 0, s.activations, Device::cpu,
              [](const Bank& bank) {
                return Cut{0, bank.count, 0, 0};
              }),
        routes(assign_routes(s.routes, banks())) {}
  const std::vector<Bank>& banks() const { return model.parameters.whole_banks(); }
};

Experiment small(const std::string& optimizer, DType dtype = DType::f32) {
  return Experiment(optimizer, {}, dtype);
}
// The preset's widths, on short sequences.
Experiment nano(const std::string& optimizer, int64_t layers = 4, Arch arch = Arch::gpt2,
                const Settings& options = {}) {
  Experiment x(optimizer, options, DType::f32);
  x.settings.model = {layers, 4, 128, 8, 256, arch, true, false};
  x.settings.batch_size = 8;
  return x;
}

// Of a period, over all ranks; rounds: of the rank with the most.
struct Counted {
  Traffic traffic;
  std::vector<int64_t> state, memory;  // bytes, by rank
  int64_t period = 1;
};

Counted counted(Experiment x, int ranks) {
  x.settings.batch_size = ranks;
  Counted result;
  auto strategy = strategy_of(x);
  x.steps = result.period = strategy->period(ranks);
  std::mutex mutex;
  Outcome outcome = run(x, ranks, "threads", [&](Replica& replica, Communicator& c) {
    Traffic mine;
    for (const std::string& kind : strategy->kinds()) {
      if (c.traffic().count(kind)) mine += c.traffic().at(kind);
    }
    Parameters& p = replica.model.parameters;
    std::lock_guard lock(mutex);
    int64_t rounds = std::max(result.traffic.rounds, mine.rounds);
    result.traffic += mine;
    result.traffic.rounds = rounds;
    result.memory.push_back(replica.update.state_bytes() + int64_t(p.values().bytes()) +
                            int64_t(p.gradients().bytes()));
  });
  for (size_t i = 0; i < outcome.state_bytes.size(); i++)
    result.state.push_back(outcome.state_bytes[i] + outcome.strategy_bytes[i]);
  return result;
}

Plan planned(const Experiment& x, int ranks) {
  Shapes shapes(x.settings);
  return strategy_of(x)->plan(shapes.banks(), shapes.routes, x.settings.activations, ranks);
}

int64_t largest(const std::vector<int64_t>& values) {
  return *std::max_element(values.begin(), values.end());
}

void check_plan(const Experiment& x, int ranks) {
  CAPTURE(x.strategy);
  CAPTURE(ranks);
  Counted real = counted(x, ranks);
  Plan plan = planned(x, ranks);
  auto of_period = [&](double mean) { return std::llround(mean * double(real.period)); };
  CHECK(of_period(plan.bytes) == real.traffic.bytes);
  CHECK(of_period(plan.messages) == real.traffic.messages);
  CHECK(of_period(plan.rounds) == real.traffic.rounds);
  CHECK(std::llround(plan.state_bytes) == largest(real.state));
}

// The least load of the busiest of `ranks`, over all ways to deal matrices out: `types` are how
// many there are of each cost. For a limit, the fewest ranks are found from those of what is left
// when one rank has taken some of each; the smallest limit that suffices is searched for.
struct Type {
  double cost;
  int64_t count;
};
class Best {
 public:
  explicit Best(std::vector<Type> types) : types_(std::move(types)) {
    for (Type& t : types_) strides_.push_back(states_), states_ *= t.count + 1;
  }
  double busiest(int ranks) const {
    std::set<double> loads;
    for (int64_t s = 1; s < states_; s++) loads.insert(load(s));
    std::vector<double> limits(loads.begin(), loads.end());
    return *std::partition_point(limits.begin(), limits.end(),
                                 [&](double limit) { return fewest_ranks(limit) > ranks; });
  }

 private:
  int64_t of(int64_t state, size_t t) const { return state / strides_[t] % (types_[t].count + 1); }
  double load(int64_t state) const {
    double sum = 0;
    for (size_t t = 0; t < types_.size(); t++) sum += double(of(state, t)) * types_[t].cost;
    return sum;
  }
  int fewest_ranks(double limit) const {
    std::vector<int64_t> fitting;  // what one rank can take
    for (int64_t s = 1; s < states_; s++)
      if (load(s) <= limit) fitting.push_back(s);
    std::vector<int> fewest(size_t(states_), 1 << 20);
    fewest[0] = 0;
    for (int64_t s = 1; s < states_; s++) {
      for (int64_t taken : fitting) {
        bool there = taken <= s;
        for (size_t t = 0; t < types_.size() && there; t++) there = of(taken, t) <= of(s, t);
        if (there) fewest[size_t(s)] = std::min(fewest[size_t(s)], 1 + fewest[size_t(s - taken)]);
      }
    }
    return fewest.back();
  }

  std::vector<Type> types_;
  std::vector<int64_t> strides_;
  int64_t states_ = 1;
};

double best_balance(const Shapes& shapes, int ranks) {
  std::map<double, int64_t> counts;
  for (size_t i = 0; i < shapes.banks().size(); i++) {
    if (!shapes.routes[i]->use.optimizer->elementwise())
      counts[orthogonalization_flops(shapes.banks()[i], *shapes.routes[i])] +=
          shapes.banks()[i].count;
  }
  std::vector<Type> types;
  for (auto [cost, count] : counts) types.push_back({cost, count});
  return Best(types).busiest(ranks);
}

double busiest(const Shapes& shapes, int ranks) {
  std::vector<double> flops = orthogonalization_flops(owners(shapes.banks(), shapes.routes, ranks),
                                                      shapes.banks(), shapes.routes);
  return *std::max_element(flops.begin(), flops.end());
}

}  // namespace

TEST_CASE("counted traffic and state are what every strategy plans: small uneven model") {
  for (const std::string optimizer : {"adamw", "muon", "normuon"}) {
    CAPTURE(optimizer);
    for (const std::string& strategy : strategies()) {
      for (int ranks : {1, 2, 3, 4, 8}) {
        Experiment x = small(optimizer);
        x.strategy = strategy;
        check_plan(x, ranks);
      }
    }
  }
}

TEST_CASE("counted traffic and state are what every strategy plans: the preset nano" *
          doctest::test_suite("long") * doctest::skip()) {
  for (const std::string optimizer : {"adamw", "muon", "normuon"}) {
    CAPTURE(optimizer);
    for (const std::string& strategy : strategies()) {
      for (int ranks : {2, 3, 4, 8}) {
        Experiment x = nano(optimizer);
        x.strategy = strategy;
        x.strategy_settings = short_period(strategy);
        check_plan(x, ranks);
      }
    }
  }
}

TEST_CASE("counted traffic is what is planned: any optimizer, blocks of rows, bf16, algorithm") {
  for (const std::string& strategy : strategies()) {
    Experiment x = small("muon");
    for (const OptimizerEntry& entry : optimizer_list()) {
      CAPTURE(entry.name);
      x = small(entry.name);
      x.strategy = strategy;
      check_plan(x, 3);
    }
    for (const std::string blocks : {"qkv", "head"}) {
      CAPTURE(blocks);
      x = small("normuon");
      x.strategy = strategy;
      for (Route& route : x.settings.routes) {
        if (route.role == Role::matrix) route.row_blocks = blocks;
      }
      check_plan(x, 3);
    }
    x = small("muon", DType::bf16);
    x.strategy = strategy;
    check_plan(x, 4);
    for (const Option& option : make_strategy(strategy)->options()) {
      for (const std::string& choice : option.choices) {
        CAPTURE(choice);
        x.strategy_settings = {{option.name, choice}};
        for (int ranks : {2, 3, 8}) check_plan(x, ranks);
      }
    }
  }
}

// The published tables count the matrices of blocks. What a block adds is the difference between
// models of two depths; embeddings and head, which fsdp fetches once and not twice, drop out.
// Everything travels as fp32, so that a number is 4 bytes; the tables take 2.
TEST_CASE("bytes a matrix parameter and rank are those of the published tables, within 2 %") {
  for (const std::string& strategy : strategies()) {
    for (int ranks : {2, 4, 8}) {
      double bytes[2], matrices[2], published = 0;
      for (int64_t deeper : {0, 1}) {
        Experiment x = nano("muon", deeper ? 3 : 1, Arch::gpt2, {{"ns_dtype", "fp32"}});
        x.strategy = strategy;
        x.strategy_settings = short_period(strategy);
        published = strategy_of(x)->published_sends(ranks);
        Counted real = counted(x, ranks);
        bytes[deeper] = double(real.traffic.bytes) / double(real.period * ranks);
        matrices[deeper] = 0;
        Shapes shapes(x.settings);
        for (const Bank& bank : shapes.banks()) {
          if (bank.role == Role::matrix)
            matrices[deeper] += double(bank.count * bank.rows * bank.cols);
        }
      }
      double sends = (bytes[1] - bytes[0]) / (matrices[1] - matrices[0]) / 4;
      if (published == 0) continue;
      MESSAGE(strategy << " on " << ranks << " ranks: " << 2 * sends << " bytes of 2-byte numbers "
                       << "a parameter and rank, published " << 2 * published);
      CHECK(sends == doctest::Approx(published).epsilon(0.02));
    }
  }
}

TEST_CASE("what a rank keeps under fsdp falls as 1 / N, within 5 %") {
  for (const std::string optimizer : {"adamw", "muon", "normuon"}) {
    CAPTURE(optimizer);
    Experiment x = nano(optimizer);
    x.strategy = "fsdp";
    double alone = double(largest(counted(x, 1).memory));
    for (int ranks : {2, 4, 8}) {
      CAPTURE(ranks);
      CHECK(double(largest(counted(x, ranks).memory)) <= 1.05 * alone / ranks);
    }
  }
}

TEST_CASE("the busiest rank orthogonalises at most a tenth more than the best division has") {
  for (Arch arch : {Arch::gpt2, Arch::modern}) {
    for (const std::string blocks : {"whole", "qkv"}) {
      for (int64_t layers : {2, 3, 4, 6}) {
        Experiment x = nano("muon", layers, arch);
        for (Route& route : x.settings.routes) {
          if (route.role == Role::matrix) route.row_blocks = blocks;
        }
        Shapes shapes(x.settings);
        for (int ranks : {2, 3, 4, 6, 8, 16}) {
          CAPTURE(blocks);
          CAPTURE(layers);
          CAPTURE(ranks);
          double best = best_balance(shapes, ranks);
          double bound = least_orthogonalization_flops(shapes.banks(), shapes.routes, ranks);
          CHECK(bound <= best * 1.000001);  // sums in another order
          CHECK(busiest(shapes, ranks) >= best * 0.999999);
          CHECK(busiest(shapes, ranks) <= 1.1 * best);
        }
      }
    }
  }
  Experiment x("muon", {}, DType::f32);
  x.settings.model = {12, 12, 768, 1024, 50304, Arch::gpt2, true, false};
  Shapes gpt2(x.settings);
  for (int ranks : {8, 64})
    CHECK(busiest(gpt2, ranks) <=
          1.1 * least_orthogonalization_flops(gpt2.banks(), gpt2.routes, ranks));
}
