// train/bench_dist.cpp - every strategy of the list, run on threads and planned on networks.
#include "train/bench_dist.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <nlohmann/json.hpp>

#include "dist/network.h"
#include "dist/ownership.h"
#include "dist/replica.h"
#include "dist/transport.h"
#include "tensor/ops.h"
#include "train/bench_timing.h"
#include "train/revision.h"
#include "train/threads.h"

namespace murmur {
namespace {

using Json = nlohmann::ordered_json;

int64_t vocabulary_of(const Config& config) { return config.vocab_size ? config.vocab_size : 256; }

std::unique_ptr<Strategy> strategy_of(const Config& config, const std::string& name) {
  std::unique_ptr<Strategy> strategy = make_strategy(name);
  if (name == config.strategy) configure(*strategy, name, config.strategy_options);
  strategy->graph = config.graph;
  return strategy;
}

// Banks and routes of the configured model, of which nothing is allocated.
struct Shapes {
  Model model;
  std::vector<Route> routes;
  std::vector<const Route*> of_banks;

  explicit Shapes(const Config& config)
      : model(model_config(config, vocabulary_of(config)), 0, activation_type(config), Device::cpu,
              [](const Bank& bank) {
                return Cut{0, bank.count, 0, 0};
              }),
        routes(make_routes(config)),
        of_banks(assign_routes(routes, banks())) {}
  const std::vector<Bank>& banks() const { return model.parameters.whole_banks(); }
};

// Of a period's steps, all ranks together, and of their memory.
struct Counted {
  int64_t bytes = 0, messages = 0, rounds = 0;  // rounds: of the rank with the most
  int64_t state_bytes = 0;                      // of the fullest rank
  int64_t memory = 0, largest_memory = 0;       // weights, gradients and state
};

void fill_at_random(uint64_t stream, int64_t vocabulary, Tensor& tokens) {
  Tensor wide(tokens.shape(), DType::f64);
  ops::random_uniform(1, stream, 0, double(vocabulary), wide);
  ops::copy(wide, tokens);
}

Counted count(const Config& config, const std::string& name, int64_t ranks) {
  ReplicaSettings settings{model_config(config, vocabulary_of(config)),
                           uint64_t(config.seed),
                           activation_type(config),
                           device_of(config),
                           make_routes(config),
                           clip_of(config),
                           config.batch_size / ranks * ranks,  // as many for each
                           1};
  Counted counted;
  std::mutex mutex;
  run_ranks("threads", {ranks, config.deadline, settings.device}, [&](Communicator& c) {
    std::unique_ptr<Strategy> strategy = strategy_of(config, name);
    strategy->join(c);
    Replica replica(settings, c, *strategy);
    fill_at_random(uint64_t(2 * c.rank()), settings.model.vocab_size, replica.tokens);
    fill_at_random(uint64_t(2 * c.rank() + 1), settings.model.vocab_size, replica.targets);
    int64_t number = 0;
    auto step = [&] {
      c.at_step(++number);
      replica.set_step(number, 1);
      replica.step();
    };
    step();
    c.reset_traffic();
    for (int64_t i = 0; i < strategy->period(int(ranks)); i++) step();
    Traffic traffic;
    for (const std::string& kind : strategy->kinds()) {
      if (c.traffic().count(kind)) traffic += c.traffic().at(kind);
    }
    int64_t state = replica.update.state_bytes();
    for (const Strategy::State& s : strategy->state()) state += int64_t(s.tensor.bytes());
    Parameters& parameters = replica.model.parameters;
    int64_t memory =
        state + int64_t(parameters.values().bytes()) + int64_t(parameters.gradients().bytes());
    std::lock_guard lock(mutex);
    counted.bytes += traffic.bytes;
    counted.messages += traffic.messages;
    counted.rounds = std::max(counted.rounds, traffic.rounds);
    counted.state_bytes = std::max(counted.state_bytes, state);
    counted.memory += memory;
    counted.largest_memory = std::max(counted.largest_memory, memory);
  });
  return counted;
}

Json over(double x, double y) { return y > 0 ? Json(x / y) : Json(); }

// A step's share of what was counted over a period, beside the plan's.
Json beside(int64_t counted, double planned, int64_t period = 1) {
  double whole = std::round(planned * double(period));
  return {{"counted", double(counted) / double(period)},
          {"planned", whole / double(period)},
          {"ratio", over(double(counted), whole)}};
}

// Bytes a step and rank for each number of the blocks' matrices: what is planned for all else is
// taken off, as published tables do.
double bytes_of_matrices(const Strategy& strategy, const Shapes& shapes, DType type, double bytes,
                         int64_t ranks) {
  std::vector<Bank> others;
  std::vector<const Route*> routes;
  double numbers = 0;
  for (size_t i = 0; i < shapes.banks().size(); i++) {
    const Bank& bank = shapes.banks()[i];
    if (bank.role == Role::matrix) {
      numbers += double(bank.count * bank.rows * bank.cols);
    } else {
      others.push_back(bank);
      routes.push_back(shapes.of_banks[i]);
    }
  }
  return (bytes - strategy.plan(others, routes, type, int(ranks)).bytes) / numbers / double(ranks);
}

Json counted_row(const Config& config, const Shapes& shapes, const std::string& name,
                 int64_t ranks) {
  std::unique_ptr<Strategy> strategy = strategy_of(config, name);
  Counted counted = count(config, name, ranks);
  DType type = activation_type(config);
  Plan plan = strategy->plan(shapes.banks(), shapes.of_banks, type, int(ranks));
  int64_t period = strategy->period(int(ranks));
  double n = double(ranks), bytes = double(counted.bytes) / double(period);
  double of_matrices = bytes_of_matrices(*strategy, shapes, type, bytes, ranks);
  double published = strategy->published_sends(int(ranks));
  double least = least_orthogonalization_flops(shapes.banks(), shapes.of_banks, int(ranks));
  double all = least_orthogonalization_flops(shapes.banks(), shapes.of_banks, 1);
  return {
      {"strategy", name},
      {"ranks", ranks},
      {"period", period},
      {"bytes", beside(counted.bytes, plan.bytes, period)},
      {"messages", beside(counted.messages, plan.messages, period)},
      {"rounds", beside(counted.rounds, plan.rounds, period)},
      {"bytes_per_parameter_and_rank",
       {{"all", bytes / n / double(shapes.model.parameters.count())},
        {"matrices", of_matrices},
        {"matrices_on_a_2_byte_wire", type == DType::f32 ? Json(of_matrices / 2) : Json()},
        {"published_on_a_2_byte_wire", published > 0 ? Json(2 * published) : Json()}}},
      {"memory_bytes", {{"largest", counted.largest_memory}, {"mean", double(counted.memory) / n}}},
      {"state_bytes", beside(counted.state_bytes, plan.state_bytes)},
      {"orthogonalization",
       {{"busiest_gflop", plan.flops * 1e-9},
        {"least_possible_gflop", least * 1e-9},
        {"busiest_to_least_possible", over(plan.flops, least)},
        {"busiest_to_even_share", over(plan.flops, all / n)}}},
  };
}

double product_tflops() {
  const int64_t n = 768;
  Tensor a({n, n}), b({n, n}), c({n, n});
  ops::random_normal(1, 0, 0, 1, a);
  ops::random_normal(1, 1, 0, 1, b);
  return 2 * double(n * n * n) / time_of([&] { ops::matmul(a, b, {c}, {}); }) * 1e-9;
}

Json planned_row(const Config& config, const Shapes& shapes, const std::string& name, int64_t ranks,
                 const std::vector<Network>& networks, double tflops) {
  Plan plan = strategy_of(config, name)
                  ->plan(shapes.banks(), shapes.of_banks, activation_type(config), int(ranks));
  double bytes = plan.bytes / double(ranks), work_ms = plan.flops / tflops * 1e-9;
  Json row = {{"strategy", name},
              {"ranks", ranks},
              {"bytes_per_rank", bytes},
              {"rounds", plan.rounds},
              {"state_bytes", plan.state_bytes},
              {"orthogonalization_ms", work_ms}};
  for (const Network& network : networks) {
    double exchange_ms = milliseconds(network, plan.rounds, bytes);
    row["networks"][network.name] = {{"exchange_ms", exchange_ms},
                                     {"total_ms", exchange_ms + work_ms}};
  }
  return row;
}

}  // namespace

std::string bench_dist(Config config, const DistBench& wanted) {
  use_threads(config.threads);
  std::vector<Network> networks = wanted.networks.empty() ? network_list() : std::vector<Network>();
  for (const std::string& name : wanted.networks) networks.push_back(find_network(name));
  std::vector<int64_t> counts = wanted.counts;
  std::erase(counts, 0);
  for (int64_t ranks : counts) {
    if (config.batch_size < ranks)
      throw InputError(fmt::format("batch_size: {} sequences are too few for {} ranks",
                                   config.batch_size, ranks));
  }
  bool given = wanted.tflops > 0;
  double tflops = given ? wanted.tflops : product_tflops();
  Shapes shapes(config);
  Json result = {
      {"preset", config.preset},
      {"arch", config.arch},
      {"optimizer", config.optimizer},
      {"dtype", name_of(activation_type(config))},
      {"parameters", shapes.model.parameters.count()},
      {"revision", revision()},
      {"counts_are",
       "sums over ranks, a step, of one micro-batch; rounds: of the rank with the most"},
      {"published_is",
       "for the matrices of blocks, moved by an optimizer of whole matrices; rows that its owners "
       "gather as bf16 (optimizer.ns_dtype) count half in what is counted"},
      {"tflops", tflops},
      {"tflops_is", given ? "as given" : "of an fp32 product on this machine"},
      {"overlap", "none: exchanges and orthogonalisation one after the other, an upper bound"},
      {"counted", Json::array()},
      {"planned", Json::array()},
  };
  for (const Network& network : networks) {
    result["networks"].push_back({{"name", network.name},
                                  {"latency_us", network.latency_us},
                                  {"gigabytes_per_s", network.gigabytes_per_s},
                                  {"summary", network.summary}});
  }
  for (const StrategyEntry& entry : strategy_list()) {
    if (entry.make()->kinds().empty()) continue;
    for (int64_t ranks : counts) {
      fmt::print(stderr, "{} on {} ranks ...\n", entry.name, ranks);
      result["counted"].push_back(counted_row(config, shapes, entry.name, ranks));
    }
    for (int64_t ranks : wanted.plan)
      result["planned"].push_back(planned_row(config, shapes, entry.name, ranks, networks, tflops));
  }
  return result.dump(1) + "\n";
}

}  // namespace murmur
