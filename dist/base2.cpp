// dist/base2.cpp - the exact mean of any number of nodes, one peer a round: Base-2 graphs
// (Takezawa, Sato, Bao, Niwa, Yamada: Beyond Exponential Graph, NeurIPS 2023).
//
//   base2(n)   n = 2^a q, q odd: simple(q) in 2^a groups at once, then a hypercube across groups
//   simple(q)  the binary digits of q give blocks of 2^p nodes, largest first. Every block levels
//              itself (p hypercube rounds). From the smallest on, blocks merge: every node of those
//              that have merged meets a node of the next larger block V, with a weight after which
//              V has the same mean as they have. Then every block levels itself once more.
#include <algorithm>

#include "dist/topology.h"

namespace murmur {
namespace {

struct Block {
  int first, digits;  // nodes first .. first + 2^digits - 1
  int size() const { return 1 << digits; }
};

std::vector<Block> blocks_of(int q) {
  std::vector<Block> blocks;
  int first = 0;
  for (int digits = 30; digits >= 0; digits--) {
    if (!(q >> digits & 1)) continue;
    blocks.push_back({first, digits});
    first += 1 << digits;
  }
  return blocks;
}

class Meetings {
 public:
  std::vector<Edges> rounds;

  void meet(int round, int a, int b, double weight) {
    if (int(rounds.size()) <= round) rounds.resize(round + 1);
    rounds[round].push_back({a, b, weight});
    rounds[round].push_back({b, a, weight});
  }
  void level(const Block& block, int from_round) {
    for (int k = 0; k < block.digits; k++) {
      for (int i = 0; i < block.size(); i++) {
        if (!(i >> k & 1)) meet(from_round + k, block.first + i, block.first + (i | 1 << k), 0.5);
      }
    }
  }
};

// The mean of q nodes, q odd.
std::vector<Edges> simple(int q) {
  std::vector<Block> blocks = blocks_of(q);
  Meetings meetings;
  for (size_t l = blocks.size() - 1; l-- > 0;) {
    const Block& block = blocks[l];
    meetings.level(block, 0);
    int end = block.first + block.size(), after = q - end;
    double weight = double(block.size()) / (block.size() + after);
    for (int i = 0; i < after; i++)  // as soon as it is level; the smaller ones have merged by then
      meetings.meet(block.digits, block.first + i, end + i, weight);
  }
  int merged = blocks.size() > 1 ? blocks[0].digits + 1 : 0;
  for (const Block& block : blocks) meetings.level(block, merged);
  return meetings.rounds;
}

}  // namespace

std::vector<Edges> base2_rounds(const TopologyOptions&, int nodes) {
  int q = nodes, groups = 1;
  for (; q % 2 == 0; q /= 2) groups *= 2;
  Meetings meetings;
  std::vector<Edges> one_group = simple(q);
  for (size_t round = 0; round < one_group.size(); round++) {
    for (int g = 0; g < groups; g++) {
      for (const Edge& edge : one_group[round]) {
        if (edge.to < edge.from)
          meetings.meet(int(round), g * q + edge.to, g * q + edge.from, edge.weight);
      }
    }
  }
  for (int step = 1, round = int(one_group.size()); step < groups; step *= 2, round++) {
    for (int g = 0; g < groups; g++) {
      for (int i = 0; i < q && !(g & step); i++)
        meetings.meet(round, g * q + i, (g | step) * q + i, 0.5);
    }
  }
  return meetings.rounds;
}

}  // namespace murmur
