// dist/agreement.h - after a loss: who is left? One answer for all, however late some of them are.
//
// Whoever is slow cannot be told from whoever is dead, so that two nodes with different patience
// would see different survivors. Here a set of nodes counts once a majority of the members has
// accepted it, and whoever proposes another one later hears of it from that majority, and proposes
// it too: Paxos, for one decision (Lamport, The Part-Time Parliament, 1998).
//
//   here               to all, at once: this node is left
//   prepare b          may I propose, in ballot b? Ballots are numbers; each belongs to one node
//   promise b          yes, and I shall accept nothing of a lower ballot; I have accepted ..
//   accept b, nodes    the nodes of the highest ballot that a promise told of, else all I heard
//   accepted b
//   verdict nodes      a majority has accepted them; whoever hears it passes it on
//
// No clock and no network here: dist/mpi.cpp has both, tests make up their own.
#pragma once

#include <optional>
#include <set>
#include <vector>

namespace murmur {

class Agreement {
 public:
  struct Letter {
    int to;
    std::vector<int> words;
  };

  Agreement(int node, const std::vector<int>& members);

  void hear(int from, const std::vector<int>& words);
  void at(double seconds);             // since the beginning: proposes where it is time to
  std::vector<Letter> take_letters();  // to be sent, in this order

  const std::set<int>& heard() const { return heard_; }  // this node among them
  // Perhaps without this node: then it came too late, and must not go on.
  const std::optional<std::vector<int>>& verdict() const { return verdict_; }

 private:
  bool majority(size_t count) const { return 2 * count > members_.size(); }
  void send(int to, std::vector<int> words);
  void send_all(const std::vector<int>& words);

  const int node_;
  const std::vector<int> members_;
  std::vector<Letter> letters_;
  std::set<int> heard_;
  std::optional<std::vector<int>> verdict_;
  // as one who is asked
  int promised_ = 0, accepted_in_ = 0;  // ballots; 0: none
  std::vector<int> accepted_;
  // as one who asks, in ballot_
  int ballot_ = 0, best_ = 0;  // best_: the highest ballot that a promise told of
  double next_ = 0;            // not before that time once more
  std::set<int> promises_, votes_;
  std::vector<int> best_nodes_, proposal_;  // empty: none yet
};

}  // namespace murmur
