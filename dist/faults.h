// dist/faults.h - a script of what goes wrong in a run, and when: the same on all ranks, so that a
// run with faults repeats to the bit. Nodes are numbered from 0, steps from 1.
//
//   lose:5@300            node 5 is gone from step 300 on, with all it knows
//   rejoin:5@400          it is back at step 400, with the weights of another node
//   skip:3@50-60          node 3's messages of these steps come too late: nobody waits for them
//   delay:2@100-150:0.05  each message of node 2 leaves 0.05 s late; nobody's numbers change
//   straggle:3@50-80:0.2  node 3 takes 0.2 s longer for a step
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace murmur {

class Faults {
 public:
  // Events with commas between them; "" for none. InputError names the one that is wrong.
  explicit Faults(const std::string& script = "");

  bool loses() const;                                       // does any node get lost?
  bool skips() const;                                       // do messages come too late?
  std::vector<int> members(int64_t step, int nodes) const;  // who takes part in a step, ascending
  std::set<int> skipped(int64_t step) const;
  double delay(int64_t step, int node) const;
  double straggle(int64_t step, int node) const;
  // InputError where an event cannot happen among so many nodes.
  void check_nodes(int nodes) const;

 private:
  struct Event {
    std::string text, kind;
    int node = 0;
    int64_t first = 0, last = 0;
    double seconds = 0;
  };
  bool any(const std::string& kind) const;
  double seconds(const std::string& kind, int64_t step, int node) const;
  std::vector<Event> events_;
};

}  // namespace murmur
