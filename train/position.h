// train/position.h - how far a run has read its text, whatever its batches were at which step.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "dist/communicator.h"

namespace murmur {

// A function of the step, from the one on that this process began with. A checkpoint keeps tokens,
// which mean the same for every batch and block size, as counters:
//
//   tokens           that all nodes have read since the run began
//   node.K.tokens    that node K has read of a text of its own (train/partition.h)
class Position {
 public:
  using Counters = std::map<std::string, int64_t>;

  // `apart`: nodes have texts of their own.
  Position(int64_t batch_size, int64_t block_size, int nodes, bool apart);
  // As a checkpoint of `step` says. Where it says nothing of each of these nodes, because they were
  // others or had one text, each has read as much.
  void restore(int64_t step, const Counters& counters);
  void share(Communicator& c);  // what rank 0 has restored, on all

  int64_t tokens(int64_t step) const;               // read when that step is done
  int64_t sequences(int64_t step) const;            // of the one text
  int64_t sequences(int64_t step, int node) const;  // of a node's own
  Counters counters(int64_t step) const;

 private:
  int64_t of_node(int64_t step, int node) const;

  int64_t batch_, block_;
  bool apart_;
  int64_t step_ = 0, tokens_ = 0;
  std::vector<int64_t> of_node_;  // tokens
};

}  // namespace murmur
