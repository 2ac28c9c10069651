// dist/collectives.h - what all ranks do together, written over exchange().
//
// P bytes, N ranks, f = (N - 1) / N. Each rank sends:
//
//   reduce_scatter, all_gather   direct: f P in 1 round of N - 1 messages     ring: f P in N - 1
//   rounds all_reduce                   both of them: 2 f P      tree: up to ceil(log2 N) P in 2
//   ceil(log2 N) rounds
//
// `direct` adds in the order of ranks, `ring` in the order of the ring that ends at the owner,
// `tree` in the order of its branches: none depends on who is early, nor on the transport.
#pragma once

#include "dist/communicator.h"

namespace murmur {

using Tensors = std::vector<Tensor>;
using Pieces = std::vector<Tensors>;  // by rank: what each of them owns

enum class Algorithm : uint8_t { direct, ring, tree };
struct AlgorithmEntry {
  std::string name, summary;
  Algorithm algorithm;
};
const std::vector<AlgorithmEntry>& algorithm_list();
Algorithm find_algorithm(const std::string& name);  // InputError names the nearest

// Exchanges of a rank, one after the other, in a reduce_scatter or an all_gather, or in half an
// all_reduce.
int rounds(Algorithm algorithm, int ranks);

// `parts` elements of x for each rank, [0] .. [n - 1], as even as possible.
int64_t share_begin(int64_t count, int rank, int ranks);
Pieces even_pieces(const Tensors& tensors, int ranks);

// Every rank has all pieces. Afterwards those of this rank hold the sums over ranks; the others are
// undefined.
void reduce_scatter(Communicator& c, const std::string& what, const Pieces& pieces,
                    Algorithm algorithm = Algorithm::direct);
// Every rank has its own pieces. Afterwards it has all.
void all_gather(Communicator& c, const std::string& what, const Pieces& pieces,
                Algorithm algorithm = Algorithm::direct);
// Every rank has all tensors. Afterwards they hold the sums over ranks, the same bits everywhere.
void all_reduce(Communicator& c, const std::string& what, const Tensors& tensors,
                Algorithm algorithm = Algorithm::direct);
// Every rank has the largest entries over ranks.
void all_reduce_max(Communicator& c, const std::string& what, Tensor& x);
// Everybody gets what `root` has, along a binomial tree: ceil(log2 N) rounds.
void broadcast(Communicator& c, const std::string& what, int root, const Tensors& tensors);
// sends[r] goes to rank r, receives[r] comes from it; entries of this rank itself are copied.
void all_to_all(Communicator& c, const std::string& what, const Pieces& sends,
                const Pieces& receives);

// The direct algorithms in two halves, so that work can go on in between.
class ReduceScatter {
 public:
  ReduceScatter(Communicator& c, std::string what, Pieces pieces);
  void poll() { pending_->poll(); }
  void finish();

 private:
  Communicator& c_;
  std::string what_;
  Pieces pieces_, received_;  // received: by sender, like this rank's own pieces
  std::unique_ptr<Pending> pending_;
};
class AllGather {
 public:
  AllGather(Communicator& c, std::string what, const Pieces& pieces);
  void poll() { pending_->poll(); }
  void finish() { c_.wait(*pending_, what_); }

 private:
  Communicator& c_;
  std::string what_;
  std::unique_ptr<Pending> pending_;
};

}  // namespace murmur
