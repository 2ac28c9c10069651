// dist/collect.h - whole tensors on rank 0, put together from what each rank has, and the way back:
// how a checkpoint is written once, and read into any other division.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "dist/communicator.h"

namespace murmur {

// Elements [begin, begin + tensor.numel()) of a tensor, row by row.
struct Piece {
  std::string name;
  Shape whole;
  int64_t begin = 0;
  Tensor tensor;
};

struct Collected {
  std::string name;
  Tensor tensor;  // on the host; a view of rank 0's own where that was all of it
};

// On rank 0: every tensor that some rank has a piece of, in order of first mention. What several
// ranks have is sent by nobody but the first of them. Elsewhere: nothing. An Error where elements
// are missing.
std::vector<Collected> collect(Communicator& c, const std::vector<Piece>& pieces);

// `find` is called on rank 0, with the name and whole shape of every piece that some rank wants;
// what it throws ends all ranks. Returns, on rank 0, the names that were asked for.
using Find = std::function<Tensor(const std::string& name, const Shape& whole)>;
std::set<std::string> distribute(Communicator& c, const Find& find,
                                 const std::vector<Piece>& pieces);

// Texts of all ranks, by rank, on rank 0; elsewhere nothing. And one that rank 0 has, for all: they
// wait for it without a deadline.
std::vector<std::string> gather_texts(Communicator& c, const std::string& what,
                                      const std::string& text);
std::string text_from_rank_zero(Communicator& c, const std::string& what, const std::string& text);
// A number that rank 0 knows.
int64_t from_rank_zero(Communicator& c, const std::string& what, int64_t value);

}  // namespace murmur
