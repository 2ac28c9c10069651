// tests/dist/agreement_test.cpp - whatever is late, lost or dead: no two nodes go on with different
// sets.
#include "dist/agreement.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <numeric>
#include <random>

using namespace murmur;

namespace {

using Nodes = std::vector<int>;

// Nodes with letters between them, in steps of a hundredth of a second. Letters of a pair keep
// their order. A node that sleeps neither reads nor writes; one that is dead has slept for ever.
struct World {
  explicit World(int count) : nodes(size_t(count)), box(size_t(count * count)), all(size_t(count)) {
    std::iota(all.begin(), all.end(), 0);
  }

  struct Node {
    std::unique_ptr<Agreement> agreement;  // from its beginning on
    double began = 0, begins = 0;          // when it notices, at the latest
    double haste = 1;                      // how fast its clock runs
    std::vector<std::pair<double, double>> sleeps;
  };
  struct Late {
    double at;
    Nodes words;
  };

  // `delay` of a letter, in seconds.
  template <class Delay>
  void run(double end, const Delay& delay) {
    const int count = int(nodes.size());
    for (double now = 0; now < end; now += 0.01) {
      for (int i = 0; i < count; i++) {
        Node& node = nodes[size_t(i)];
        bool awake = true;
        for (auto [from, to] : node.sleeps) awake = awake && (now < from || now >= to);
        if (!awake) continue;
        auto arrived = [&](int from) -> std::deque<Late>* {
          auto& letters = box[size_t(i * count + from)];
          return letters.empty() || letters.front().at > now ? nullptr : &letters;
        };
        bool alarmed = now >= node.begins;
        for (int from = 0; from < count; from++) alarmed = alarmed || arrived(from);
        if (!alarmed) continue;
        if (!node.agreement) {
          node.agreement = std::make_unique<Agreement>(i, all);
          node.began = now;
        }
        if (node.agreement->verdict()) continue;  // has gone on, and reads nothing any more
        node.agreement->at(node.haste * (now - node.began));
        for (int from = 0; from < count; from++) {
          while (auto* letters = arrived(from)) {
            node.agreement->hear(from, letters->front().words);
            letters->pop_front();
          }
        }
        for (const auto& [to, words] : node.agreement->take_letters()) {
          auto& letters = box[size_t(to * count + i)];
          double at = now + delay();
          if (!letters.empty()) at = std::max(at, letters.back().at);
          letters.push_back({at, words});
        }
      }
    }
  }
  std::vector<Nodes> verdicts() const {  // of those who have one
    std::vector<Nodes> found;
    for (const Node& node : nodes)
      if (node.agreement && node.agreement->verdict()) found.push_back(*node.agreement->verdict());
    return found;
  }

  std::vector<Node> nodes;
  std::vector<std::deque<Late>> box;  // [to * count + from]
  Nodes all;
};

double prompt() { return 0; }

}  // namespace

TEST_CASE("agreement: who is dead is left out, soon") {
  for (int count : {3, 4, 5, 8}) {
    for (int dead = 0; dead < count; dead++) {
      World world(count);
      world.nodes[size_t(dead)].sleeps = {{0, 1e9}};
      world.run(1.5, prompt);
      Nodes left = world.all;
      left.erase(left.begin() + dead);
      CHECK(world.verdicts() == std::vector<Nodes>(size_t(count - 1), left));
    }
    World world(count);
    world.run(0.1, prompt);  // nobody is: no need to wait
    CHECK(world.verdicts() == std::vector<Nodes>(size_t(count), world.all));
  }
}

TEST_CASE("agreement: a node that sleeps while the others agree hears what they agreed on") {
  for (double asleep : {0.6, 0.8, 1.0, 3.0}) {
    World world(3);
    world.nodes[0].sleeps = {{0, asleep}};
    world.run(asleep + 2, prompt);
    std::vector<Nodes> verdicts = world.verdicts();
    CAPTURE(asleep);
    REQUIRE(verdicts.size() == 3);
    for (const Nodes& nodes : verdicts) CHECK(nodes == (asleep < 0.7 ? world.all : Nodes{1, 2}));
  }
}

TEST_CASE("agreement: half of the members decide nothing") {
  World world(4);
  for (size_t dead : {1, 3}) world.nodes[dead].sleeps = {{0, 1e9}};
  world.run(5, prompt);
  CHECK(world.verdicts().empty());
}

TEST_CASE("agreement: on no schedule do two nodes go on with different sets") {
  int decided = 0, with_all = 0;
  for (int seed = 0; seed < 3000; seed++) {
    CAPTURE(seed);
    std::mt19937 random{unsigned(seed)};
    auto uniform = [&](double high) {
      return std::uniform_real_distribution<double>(0, high)(random);
    };
    World world(3 + int(random() % 4));
    for (auto& node : world.nodes) {
      node.begins = uniform(1);
      node.haste = 1 + uniform(3);  // proposals upon proposals
      for (double now = uniform(1); uniform(1) < 0.9 && now < 4;) {
        double length = random() % 30 ? uniform(0.6) : 1e9;
        node.sleeps.push_back({now, now + length});
        now += length + uniform(0.6);
      }
    }
    world.run(6, [&] { return uniform(0.05); });
    std::vector<Nodes> verdicts = world.verdicts();
    for (const Nodes& nodes : verdicts) {
      CHECK(nodes == verdicts[0]);
      CHECK(2 * nodes.size() > world.nodes.size());
    }
    decided += !verdicts.empty();
    with_all += !verdicts.empty() && verdicts[0] == world.all;
  }
  CHECK(decided > 2500);  // the schedules are hard, but not hopeless
  CHECK(with_all < decided - 100);
}
