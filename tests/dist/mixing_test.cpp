// x <- W x over messages, beside the dense product; what it costs, and what errors it makes.
#include "dist/mixing.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <mutex>
#include <random>

#include "dist/topology_report.h"
#include "dist/transport.h"
#include "tensor/ops.h"
#include "tests/dist/stacked.h"
#include "tests/optim/training.h"

using namespace murmur;

namespace {

Topology named(const std::string& name, int nodes, bool lazy = false) {
  return make_topology({.name = name, .lazy = lazy}, nodes);
}

// Every topology of the list that exists for this many nodes.
std::vector<std::pair<std::string, Topology>> topologies_of(int nodes) {
  std::vector<std::pair<std::string, Topology>> all;
  bool power_of_two = (nodes & (nodes - 1)) == 0;
  for (const TopologyEntry& entry : topology_list()) {
    bool cube = entry.name == "hypercube" || entry.name == "one_peer_hypercube";
    if (entry.name == "edges" || (cube && !power_of_two)) continue;
    all.emplace_back(entry.name, named(entry.name, nodes));
  }
  return all;
}

Stack random_stack(int nodes, int64_t size, uint64_t seed = 1, double deviation = 1) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0, deviation);
  Stack x = Stack(size_t(nodes), Row(size_t(size)));
  for (Row& row : x) {
    for (double& v : row) v = normal(random);
  }
  return x;
}

struct Mixed {
  Stack x;
  Traffic traffic;  // over all ranks; rounds: of the rank with the most
};

// One Mixer a rank, and `work` with it and the rank's row.
using Work = std::function<void(Mixer&, Tensor x, int rank)>;
Mixed with_mixers(const Topology& topology, const MixingOptions& options, const Stack& x,
                  DType type, const Work& work) {
  Mixed mixed{x, {}};
  std::mutex mutex;
  Threads one(1);
  run_ranks("threads", World{topology.nodes(), 60, Device::cpu}, [&](Communicator& c) {
    const Row& mine = x[size_t(c.rank())];
    Tensor row = Tensor::of(mine, {int64_t(mine.size())}, type);
    Mixer mixer(c, "rows", topology, options);
    work(mixer, row, c.rank());
    std::lock_guard lock(mutex);
    mixed.x[size_t(c.rank())] = to_vector(row);
    Traffic sent = c.total_traffic();
    mixed.traffic.bytes += sent.bytes;
    mixed.traffic.messages += sent.messages;
    mixed.traffic.rounds = std::max(mixed.traffic.rounds, sent.rounds);
  });
  return mixed;
}

Mixed mixed(const Topology& topology, const MixingOptions& options, const Stack& x,
            int64_t steps = 1, DType type = DType::f64) {
  return with_mixers(topology, options, x, type, [&](Mixer& mixer, const Tensor& row, int) {
    for (int64_t step = 1; step <= steps; step++) mixer.mix(step, row);
  });
}

double error_of(const Graph& graph, const MixingOptions& options, const Stack& x, int64_t steps) {
  Stack expected = x;
  for (int64_t step = 1; step <= steps; step++) expected = graph.mixed(step, expected);
  return largest_difference(mixed(graph.topology, options, x, steps).x, expected);
}

struct EdgeFile {
  std::string path;
  explicit EdgeFile(const std::string& text)
      : path(std::filesystem::temp_directory_path() / ("edges_" + std::to_string(getpid()))) {
    std::ofstream(path) << text;
  }
  ~EdgeFile() { std::filesystem::remove(path); }
};

double mean_moved(const Stack& from, const Stack& to) {
  return largest_difference(mean(from), mean(to));
}

std::string error_of_call(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}
bool one_line(const std::string& text) { return !text.empty() && text.find('\n') == text.npos; }

}  // namespace

TEST_CASE("mixing is the product with W: every topology, every number of nodes, round by round") {
  for (int nodes : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16}) {
    for (const auto& [name, topology] : topologies_of(nodes)) {
      CAPTURE(nodes);
      CAPTURE(name);
      Stack x = random_stack(nodes, 7);
      for (int64_t rounds : {1, 3}) {
        MixingOptions options{.rounds = rounds};
        int64_t steps = topology.rounds() + 1;
        CHECK(error_of({topology, int(rounds)}, options, x, steps) < 1e-13);
      }
    }
  }
}

TEST_CASE("pieces: tensors below, at and above the size of one") {
  for (const std::string name : {"ring", "one_peer_exponential"}) {
    for (int64_t size : {kPiece - 1, kPiece, 2 * kPiece + 3}) {
      CAPTURE(name);
      CAPTURE(size);
      Graph graph{named(name, 3), 2};
      CHECK(error_of(graph, {.rounds = 2}, random_stack(3, size), 1) < 1e-13);
    }
  }
}

TEST_CASE("what is sent is what was foreseen: every topology, wire and size") {
  std::vector<MixingOptions> all = {
      {},
      {.wire = "bf16"},
      {.wire = "int8"},
      {.rounds = 3},
      {.wire = "int8", .replicas = true},
      {.rounds = 2, .replicas = true, .keep = 0.1, .gamma = 0.1},
      {.rounds = 4, .chebyshev = true},
  };
  for (int nodes : {1, 2, 5, 8}) {
    for (const auto& [name, topology] : topologies_of(nodes)) {
      for (const MixingOptions& options : all) {
        bool fixed = topology.rounds() == 1;
        if (options.replicas && !fixed) continue;
        if (options.chebyshev && (!fixed || topology.directed())) continue;
        for (DType type : {DType::f64, DType::f32}) {
          CAPTURE(name);
          CAPTURE(nodes);
          CAPTURE(options.wire);
          CAPTURE(options.rounds);
          bool pieces = nodes == 2 && name == "ring";
          int64_t size = pieces ? kPiece + 70 : 201, steps = topology.rounds();
          Traffic sent = mixed(topology, options, random_stack(nodes, size), steps, type).traffic;
          Traffic foreseen;
          for (int64_t step = 1; step <= steps; step++)
            foreseen += traffic_of(topology, options, step, size, type);
          CHECK(sent.bytes == foreseen.bytes);
          CHECK(sent.messages == foreseen.messages);
          CHECK(sent.rounds == foreseen.rounds);
        }
      }
    }
  }
}

TEST_CASE("the bytes of a wire: fp32 4, bf16 2, int8 1.03, of a share kept 8 for each number") {
  Topology ring = named("ring", 4);  // 8 messages
  auto bytes = [&](const MixingOptions& options) {
    return double(traffic_of(ring, options, 1, 6400, DType::f32).bytes) / 8 / 6400;
  };
  CHECK(bytes({}) == 4);
  CHECK(bytes({.wire = "bf16"}) == 2);
  CHECK(bytes({.wire = "int8"}) == doctest::Approx(1 + 2.0 / 64));
  CHECK(bytes({.replicas = true, .keep = 0.1}) == doctest::Approx(0.8));
}

TEST_CASE("the mean over nodes is kept by every wire on every topology") {
  for (int nodes : {2, 3, 6, 8}) {
    for (const auto& [name, topology] : topologies_of(nodes)) {
      for (const std::string& wire : kWires) {
        CAPTURE(nodes);
        CAPTURE(name);
        CAPTURE(wire);
        Stack x = random_stack(nodes, 130);
        CHECK(mean_moved(x, mixed(topology, {.wire = wire}, x, 20).x) < 1e-14);
        if (topology.rounds() > 1) continue;
        MixingOptions replicas{.wire = wire, .replicas = true};
        CHECK(mean_moved(x, mixed(topology, replicas, x, 20).x) < 1e-14);
        MixingOptions few{.replicas = true, .keep = 0.1, .gamma = 0.1};
        CHECK(mean_moved(x, mixed(topology, few, x, 20).x) < 1e-14);
        if (topology.directed()) continue;
        MixingOptions fast{.wire = wire, .rounds = 5, .chebyshev = true};
        CHECK(mean_moved(x, mixed(topology, fast, x, 5).x) < 1e-13);
      }
    }
  }
}

TEST_CASE("in fp32 the mean does not drift, however long: plain, Chebyshev, push-sum's sum") {
  auto drift = [](const Topology& topology, const MixingOptions& options, int64_t steps) {
    Stack x = random_stack(topology.nodes(), 50);
    for (Row& row : x) {
      for (double& v : row) v = double(float(1 + 0.1 * v));
    }
    return mean_moved(x, mixed(topology, options, x, steps, DType::f32).x);
  };
  CHECK(drift(named("ring", 3), {}, 3000) < 1e-6);
  CHECK(drift(named("ring", 8), {.rounds = 10, .chebyshev = true}, 1000) < 1e-6);
  EdgeFile file("directed\n0 1\n0 2\n1 3\n2 0\n3 1\n3 2\n");  // columns of thirds and of halves
  CHECK(drift(make_topology({.name = "edges", .weights = "column", .edges = file.path}, 4), {},
              3000) < 1e-6);
}

TEST_CASE("Chebyshev: the published error bound, and a third of the rounds") {
  struct Case {
    const char* name;
    int nodes, plain, fast;  // rounds until 1e-6 of the disagreement is left
  };
  for (const Case& each : {Case{"ring", 8, 64, 22}, Case{"ring", 16, 266, 45}}) {
    CAPTURE(each.nodes);
    Topology topology = named(each.name, each.nodes);
    double rho = report(topology).rho, c = (1 - std::sqrt(1 - rho * rho)) / rho;
    CHECK(c == doctest::Approx(each.nodes == 8 ? 0.504971 : 0.722133).epsilon(1e-5));
    // The slowest wave there is: every round of plain gossip leaves rho of it.
    Stack x = Stack(size_t(each.nodes), Row(1));
    for (int i = 0; i < each.nodes; i++) x[size_t(i)][0] = std::cos(2 * M_PI * i / each.nodes);
    auto left = [&](int64_t rounds, bool fast) {
      MixingOptions options{.rounds = rounds, .chebyshev = fast};
      return disagreement(mixed(topology, options, x).x) / disagreement(x);
    };
    for (int64_t rounds : {1, 2, 3, 5, 10, 22, 45}) {
      double bound = 2 * std::pow(c, rounds) / (1 + std::pow(c, 2 * rounds));
      CHECK(left(rounds, true) == doctest::Approx(bound).epsilon(1e-6));  // the wave attains it
      CHECK(left(rounds, false) == doctest::Approx(std::pow(rho, rounds)).epsilon(1e-9));
    }
    CHECK(left(each.fast, true) <= 1e-6);
    CHECK(left(each.fast - 1, true) > 1e-6);
    CHECK(left(each.plain, false) <= 1e-6);
    CHECK(left(each.plain - 1, false) > 1e-6);
    Stack any = random_stack(each.nodes, 40);
    for (int64_t rounds : {2, 4, 9}) {
      double bound = 2 * std::pow(c, rounds) / (1 + std::pow(c, 2 * rounds));
      MixingOptions options{.rounds = rounds, .chebyshev = true};
      CHECK(disagreement(mixed(topology, options, any).x) < bound * disagreement(any) * 1.000001);
    }
  }
  // Where one round is exact there is nothing to accelerate.
  Stack x = random_stack(4, 9);
  CHECK(disagreement(mixed(named("complete", 4), {.rounds = 3, .chebyshev = true}, x).x) < 1e-14);
  // However many: their factors stay finite.
  Stack many = mixed(named("ring", 4), {.rounds = 500, .chebyshev = true}, x).x;
  CHECK(disagreement(many) < 1e-14);
  CHECK(mean_moved(x, many) < 1e-14);
}

TEST_CASE("traces known by hand: ring of 4, one peer at a time of 4") {
  Stack x = {{0}, {4}, {8}, {12}};
  Stack once = mixed(named("ring", 4), {}, x).x, third = mixed(named("ring", 4), {}, x, 3).x;
  CHECK(largest_difference(once, {{16 / 3.}, {4}, {8}, {20 / 3.}}) < 1e-14);
  CHECK(largest_difference(third, {{5.9259}, {5.7778}, {6.2222}, {6.0741}}) < 5e-5);
  Topology one_peer = named("one_peer_exponential", 4);
  CHECK(mixed(one_peer, {}, x).x == Stack{{6}, {2}, {6}, {10}});
  CHECK(mixed(one_peer, {}, x, 2).x == Stack{{6}, {6}, {6}, {6}});
}

// Weights, as they are while training: close to each other, and 200 rounds to agree.
TEST_CASE("int8: differences leave a floor of a step, replicas none; bf16 little") {
  Stack common = random_stack(1, 512, 3, 0.02), x = random_stack(8, 512, 4, 3e-4);
  for (Row& row : x) {
    for (size_t p = 0; p < row.size(); p++) row[p] += common[0][p];
  }
  auto left = [&](const MixingOptions& options) {
    return disagreement(mixed(named("ring", 8), options, x, 200).x) / disagreement(x);
  };
  CHECK(left({}) < 1e-10);
  CHECK(left({.wire = "bf16"}) < 0.2);
  CHECK(left({.wire = "int8"}) > 0.05);
  CHECK(left({.wire = "int8", .replicas = true}) < 1e-10);
}

TEST_CASE("CHOCO that sends everything at once is plain gossip") {
  Graph ring{named("ring", 8), 2};
  CHECK(error_of(ring, {.rounds = 2, .replicas = true}, random_stack(8, 33), 10) < 1e-14);
  Graph exponential{named("exponential", 5)};
  CHECK(error_of(exponential, {.replicas = true}, random_stack(5, 33), 10) < 1e-14);
}

TEST_CASE("CHOCO: the largest tenth of differences converges with a small gamma; else it says so") {
  Stack x = random_stack(8, 1000);
  auto options = [](double gamma) {
    return MixingOptions{.replicas = true, .keep = 0.1, .gamma = gamma};
  };
  for (double gamma : {0.1, 0.2, 0.3}) {
    CAPTURE(gamma);
    Stack after = mixed(named("ring", 8), options(gamma), x, 600).x;
    CHECK(disagreement(after) < 2e-3 * disagreement(x));
  }
  for (double gamma : {0.6, 1.0}) {
    CAPTURE(gamma);
    std::string error = error_of_call([&] { mixed(named("ring", 8), options(gamma), x, 600); });
    CHECK(one_line(error));
    CHECK(error.find("diverges; lower --strategy.gamma") != error.npos);
  }
}

TEST_CASE("CHOCO sends the largest differences, the same ones on every run") {
  // Two nodes, weights 1/2: after a round each has moved by half the difference of what both sent.
  Stack x = {{4, 0, -9, 1, 2, 0, 0, 0}, {0, 3, 0, 0, 0, -8, 5, 0}};
  Stack y = mixed(named("ring", 2), {.replicas = true, .keep = 0.25, .gamma = 1}, x).x;
  Stack sent = {{4, 0, -9, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, -8, 5, 0}}, expected = x;
  for (size_t p = 0; p < 8; p++) {
    expected[0][p] += 0.5 * (sent[1][p] - sent[0][p]);
    expected[1][p] += 0.5 * (sent[0][p] - sent[1][p]);
  }
  CHECK(y == expected);
}

namespace {

// What push-sum does: x and s over the same columns.
Stack ratios(const Topology& topology, Stack x, int64_t steps) {
  Stack s(x.size(), Row(1, 1));
  x = mixed(topology, {}, x, steps).x;
  s = mixed(topology, {}, s, steps).x;
  for (size_t i = 0; i < x.size(); i++) x[i][0] /= s[i][0];
  return x;
}

}  // namespace

TEST_CASE("push-sum finds the mean where columns sum to 1 and rows do not: known answers") {
  EdgeFile file("directed\n0 1\n0 2\n1 2\n2 0\n");
  Topology t = make_topology({.name = "edges", .weights = "column", .edges = file.path}, 3);
  Stack a = {{1 / 3., 0, .5}, {1 / 3., .5, 0}, {1 / 3., .5, .5}};
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++)
      CHECK(t.weight(0, i, j) == doctest::Approx(a[size_t(i)][size_t(j)]));
  }
  Stack x = {{0}, {3}, {6}};
  CHECK(largest_difference(mixed(t, {}, x).x, {{3}, {1.5}, {4.5}}) < 1e-14);
  CHECK(largest_difference(ratios(t, x, 1), {{3.6}, {1.8}, {3.375}}) < 1e-14);
  CHECK(largest_difference(ratios(t, x, 2), {{3.4411765}, {2.52}, {2.9387755}}) < 1e-7);
  CHECK(largest_difference(ratios(t, x, 3), {{3.0976744}, {2.9580420}, {2.9482759}}) < 1e-7);
  CHECK(largest_difference(ratios(t, x, 60), {{3}, {3}, {3}}) < 1e-13);
  CHECK(largest_difference(mixed(t, {}, x, 60).x, {{3}, {2}, {4}}) < 1e-13);  // biased by itself
  x = {{1}, {4}, {7}};
  CHECK(largest_difference(mixed(t, {}, x, 3).x, {{4.078704}, {2.620370}, {5.300926}}) < 1e-6);
  CHECK(largest_difference(ratios(t, x, 2), {{4.441176}, {3.52}, {3.938776}}) < 1e-6);
  CHECK(error_of({t, 3}, {.rounds = 3}, random_stack(3, 20), 4) < 1e-13);
  // Whatever the wire, nothing is lost on the way.
  x = random_stack(3, 100);
  for (const char* wire : {"fp32", "bf16"})
    CHECK(mean_moved(x, mixed(t, {.wire = wire}, x, 30).x) < 1e-14);
}

// x_{t+1} = x_t + d_t + (W_{t-1} - I) x_{t-1}
TEST_CASE("in two halves: two under way, each added to what has gone on meanwhile") {
  for (const std::string name : {"ring", "exponential", "one_peer_exponential", "base2"}) {
    for (int64_t size : {5, int(kPiece) + 2}) {
      const int nodes = size > 5 ? 3 : 6;
      const int64_t steps = 4;
      CAPTURE(name);
      CAPTURE(nodes);
      Topology topology = named(name, nodes);
      Graph graph{topology};
      Stack x = random_stack(nodes, size), now = x, before;
      for (int64_t step = 1; step <= steps; step++) {
        Stack next = 0.9 * now;
        if (step > 1) next = next + graph.mixed(step - 1, before) - before;
        before = now;
        now = next;
      }
      Stack found = with_mixers(topology, {}, x, DType::f64, [&](Mixer& mixer, Tensor row, int) {
                      std::vector<Tensor> sent;
                      for (int64_t step = 1; step <= steps; step++) {
                        sent.emplace_back(row.shape(), row.dtype());
                        ops::copy(row, sent.back());
                        CHECK(mixer.under_way() == (step > 1));
                        mixer.begin(step, sent.back());
                        ops::scale(0.9, row, {row});
                        if (step > 1) mixer.finish(row);
                      }
                      Tensor rest = Tensor::zeros(row.shape(), row.dtype());
                      mixer.finish(rest);
                      CHECK(!mixer.under_way());
                    }).x;
      CHECK(largest_difference(found, now) < 1e-13);
    }
  }
}

TEST_CASE("left out at both ends: the others' mean is kept, and the lost one's value") {
  for (const char* name : {"ring", "torus", "complete", "star", "one_peer_hypercube", "base2"}) {
    for (const std::string& wire : kWires) {
      CAPTURE(name);
      CAPTURE(wire);
      Topology topology = named(name, 8);
      Stack x = random_stack(8, 65);
      Stack y =
          with_mixers(topology, {.wire = wire}, x, DType::f64, [&](Mixer& mixer, Tensor row, int) {
            for (int64_t step = 1; step <= 6; step++) {
              mixer.leave_out(step <= 3 ? std::set<int>{2, 5} : std::set<int>{});
              mixer.mix(step, row);
            }
          }).x;
      CHECK(mean_moved(x, y) < 1e-14);
      y = with_mixers(topology, {.wire = wire}, x, DType::f64, [&](Mixer& mixer, Tensor row, int) {
            mixer.leave_out({2, 5});
            mixer.mix(1, row);
          }).x;
      CHECK(y[2] == x[2]);
      CHECK(y[5] == x[5]);
      CHECK(mean_moved(x, y) < 1e-14);
    }
  }
}

// Node 0 mixes the first piece and ends in the middle of the second, when those that do not talk to
// it have added all of it: their neighbours have not.
TEST_CASE(
    "a node that dies in the middle of mixing leaves edges that act at both ends or at none") {
  EdgeFile file("directed\n0 1\n1 2\n2 3\n3 4\n4 0\n");
  const int64_t size = kPiece + 70;
  for (const auto& [name, weights, nodes] : {std::tuple{"ring", "auto", 5},
                                             {"path", "auto", 4},
                                             {"edges", "auto", 5},
                                             {"star", "column", 4}}) {
    for (const MixingOptions& options : std::vector<MixingOptions>{
             {}, {.wire = "bf16"}, {.wire = "int8"}, {.wire = "int8", .replicas = true}}) {
      bool column = std::string(weights) == "column", in_halves = options.wire == "bf16";
      if (column && options.wire == "int8") continue;
      CAPTURE(name);
      CAPTURE(options.wire);
      TopologyOptions graph = {.name = name, .weights = weights};
      if (graph.name == "edges") graph.edges = file.path;
      Topology topology = make_topology(graph, nodes);
      const int last = column ? 1 : 0;  // a leaf of the star ends, or the first of all
      auto talks = [&](int rank) {
        return topology.weight(0, rank, last) + topology.weight(0, last, rank) > 0;
      };
      std::atomic<int> waited_for = 0;
      std::promise<void> all_done;
      for (int rank = 0; rank < nodes; rank++) waited_for += !talks(rank);
      Stack x = random_stack(nodes, size), y = x;
      run_ranks("threads", World{nodes, 60, Device::cpu}, [&](Communicator& c) {
        c.survive();
        Tensor row = Tensor::of(x[size_t(c.rank())], {size}, DType::f64);
        Mixer mixer(c, "rows", topology, options);
        auto mix = [&](const Tensor& part) {
          if (!in_halves) return mixer.mix(1, part);
          mixer.begin(1, part);
          mixer.finish(part);
        };
        auto note = [&] { y[size_t(c.node())] = to_vector(row); };
        if (c.rank() == last) {
          mix(row.slice(0, kPiece));
          note();
          return all_done.get_future().wait();
        }
        bool lost = false;
        try {
          mix(row);
          if (--waited_for == 0) all_done.set_value();
        } catch (const RankLost&) {
          lost = true;
        }
        CHECK(lost == talks(c.rank()));
        mixer.hold();
        Tensor sent = Tensor::of(to_vector(row), {size}, DType::f64);
        ops::scale(0.5, row, {row});  // it goes on meanwhile
        std::vector<int> left;
        for (int node = 0; node < nodes; node++)
          if (node != last) left.push_back(node);
        c.set_members(left);
        mixer.settle(row);
        ops::scale(0.5, sent, {row, true});
        note();
      });
      for (int rank = 0; rank < nodes; rank++) {
        Row before = x[size_t(rank)], after = y[size_t(rank)];
        before.erase(before.begin(), before.begin() + kPiece);
        after.erase(after.begin(), after.begin() + kPiece);
        CHECK((before != after) == (rank != last));  // somebody had added something
      }
      CHECK(mean_moved(x, y) < 1e-14);
    }
  }
}

TEST_CASE("replicas come through a step in which somebody is left out, and still agree") {
  Stack x = random_stack(8, 200);
  MixingOptions options{.wire = "int8", .replicas = true};
  Stack y =
      with_mixers(named("ring", 8), options, x, DType::f64, [](Mixer& mixer, Tensor row, int) {
        for (int64_t step = 1; step <= 300; step++) {
          mixer.leave_out(step == 2 || step == 7 ? std::set<int>{3} : std::set<int>{});
          mixer.mix(step, row);
        }
      }).x;
  CHECK(mean_moved(x, y) < 1e-13);
  CHECK(disagreement(y) < 1e-10);
}

TEST_CASE("what replicas remember can be saved and restored to the bit; use() begins anew") {
  Topology ring = named("ring", 4);
  MixingOptions options{.wire = "int8", .replicas = true};
  Stack x = random_stack(4, 100);
  std::vector<std::vector<Row>> saved(4);  // by rank
  Stack half = with_mixers(ring, options, x, DType::f64, [&](Mixer& mixer, Tensor row, int rank) {
                 CHECK(mixer.memory().empty());
                 for (int64_t step = 1; step <= 5; step++) mixer.mix(step, row);
                 for (const Tensor& memory : mixer.memory())
                   saved[size_t(rank)].push_back(to_vector(memory));
               }).x;
  Stack rest =
      with_mixers(ring, options, half, DType::f64, [&](Mixer& mixer, Tensor row, int rank) {
        mixer.begin_memory(row);
        for (size_t i = 0; i < 2; i++) {
          Tensor to = mixer.memory()[i];
          ops::copy(Tensor::of(saved[size_t(rank)][i], {100}, DType::f64), to);
        }
        for (int64_t step = 6; step <= 9; step++) mixer.mix(step, row);
      }).x;
  CHECK(rest == mixed(ring, options, x, 9).x);
  with_mixers(ring, options, x, DType::f64, [&](Mixer& mixer, Tensor row, int) {
    mixer.mix(1, row);
    CHECK(mixer.memory().size() == 2);
    mixer.use(named("ring", 4));
    CHECK(mixer.memory().empty());
    mixer.mix(2, row);
  });
}

TEST_CASE("what a mixer cannot do it says in one line") {
  auto error = [](const char* topology, const MixingOptions& options) {
    return error_of_call([&] { mixed(named(topology, 4), options, random_stack(4, 3)); });
  };
  for (const char* schedule : {"one_peer_exponential", "one_peer_hypercube", "base2"}) {
    for (const MixingOptions& options :
         {MixingOptions{.wire = "int8", .replicas = true}, {.rounds = 4, .chebyshev = true}}) {
      std::string text = error(schedule, options);
      CHECK(one_line(text));
      CHECK(text.find(options.replicas ? "replicas" : "chebyshev") != text.npos);
    }
  }
  std::string text = error("exponential_demuon", {.rounds = 4, .chebyshev = true});
  CHECK(one_line(text));
  CHECK(text.find("symmetric") != text.npos);
}
