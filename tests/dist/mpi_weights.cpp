// tests/dist/mpi_weights.cpp - a short run of every decentralised strategy, and a line of what came
// out: its name, and a number for the bits of all weights of all nodes. Lines of different
// transports are to be equal.
//
//   mpi_weights threads N
//   mpirun -n N mpi_weights mpi
#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "dist/replica.h"
#include "dist/transport.h"
#include "optim/registry.h"
#include "tensor/ops.h"

using namespace murmur;

namespace {

using Settings = std::map<std::string, std::string>;

struct Run {
  std::string strategy;
  Settings settings;
  TopologyOptions graph;
  std::string optimizer = "muon";
};

std::vector<Run> runs() {
  std::vector<Run> all = {
      {"gossip", {}, {.name = "ring"}, "adamw"},
      {"gossip", {{"order", "cta"}, {"overlap", "true"}}, {.name = "exponential"}, "sgd"},
      {"gossip", {{"overlap", "true"}}, {.name = "ring", .lazy = true}, "sen"},
      {"gossip", {{"wire", "int8"}}, {.name = "torus"}},
      {"gossip", {{"keep", "0.2"}, {"gamma", "0.2"}}, {.name = "ring"}},
      {"gossip", {{"wire", "bf16"}, {"mix_state", "v"}}, {.name = "base2"}, "normuon"},
      {"gossip", {{"gossip_rounds", "4"}, {"chebyshev", "true"}}, {.name = "path"}},
      {"gradient_tracking", {{"momentum", "0.8"}}, {.name = "one_peer_exponential"}},
      {"gradient_tracking", {{"order", "cta"}, {"overlap", "true"}}, {.name = "ring"}, "normuon"},
      {"gradient_tracking", {{"wire", "int8"}}, {.name = "complete"}},
      {"d2", {}, {.name = "ring", .lazy = true}, "adamw"},
      {"push_sum", {}, {.name = "star", .weights = "column"}, "sgd"},
      {"push_sum", {{"wire", "bf16"}}, {.name = "exponential"}},
      {"quasi_global", {}, {.name = "erdos_renyi"}, "sgd"},
  };
  return all;
}

NamedOptimizer named(const std::string& name) {
  return {name, std::shared_ptr<Optimizer>(make_optimizer(name))};
}

// FNV-1a over the bits.
uint64_t bits(const Tensor& x, uint64_t sum) {
  auto* bytes = static_cast<const unsigned char*>(x.raw());
  for (size_t i = 0; i < x.bytes(); i++) sum = (sum ^ bytes[i]) * 0x100000001b3;
  return sum;
}

// Of all ranks, on rank 0.
uint64_t bits_of_all(Communicator& c, const Tensor& weights) {
  if (c.rank() > 0) {
    c.exchange("weights", {{0, weights}}, {});
    return 0;
  }
  uint64_t sum = bits(weights, 0xcbf29ce484222325);
  for (int rank = 1; rank < c.size(); rank++) {
    Tensor theirs(weights.shape(), weights.dtype());
    c.exchange("weights", {}, {{rank, theirs}});
    sum = bits(theirs, sum);
  }
  return sum;
}

uint64_t trained(const Run& run, Communicator& c) {
  auto strategy = make_strategy(run.strategy);
  configure(*strategy, run.strategy, run.settings);
  strategy->graph = run.graph;
  strategy->join(c);
  ReplicaSettings s;
  s.model = {2, 2, 12, 6, 37, Arch::gpt2, true, false};
  s.seed = 7;
  s.batch_size = 2 * c.size();
  s.clip = 1;
  s.routes = default_routes(named(run.optimizer), named("adamw"));
  Replica replica(s, c, *strategy);
  for (int64_t step = 1; step <= 12; step++) {
    c.at_step(step);
    auto stream = uint64_t(c.rank());
    for (Tensor* x : {&replica.tokens, &replica.targets}) {
      Tensor wide(x->shape(), DType::f64);
      ops::random_uniform(uint64_t(step), stream += 100, 0, 37, wide);
      ops::copy(wide, *x);
    }
    replica.set_step(step, 1);
    replica.step();
  }
  return bits_of_all(c, replica.model.parameters.values());
}

}  // namespace

int main(int argc, char** argv) {
  std::string transport = argc > 1 ? argv[1] : "threads";
  World world{argc > 2 ? std::atoi(argv[2]) : 0, 60, Device::cpu};
  try {
    run_ranks(transport, world, [](Communicator& c) {
      for (const Run& run : runs()) {
        uint64_t sum = trained(run, c);
        if (c.rank() == 0)
          fmt::print("{} {} {} {:016x}\n", run.strategy, run.graph.name, run.optimizer, sum);
      }
    });
  } catch (const Error& error) {
    fmt::print(stderr, "mpi_weights: {}\n", error.what());
    return 2;
  }
  return 0;
}
