// dist/mixing.h - x <- W x over a graph: every node moves towards what it hears from its
// neighbours.
//
//   x_i <- x_i + sum_j w_ij (q_j - q_i)         q: x as it is on the wire; j: neighbours, ascending
//
// In difference form: what one end of an edge adds, the other takes away, so that the mean over
// nodes is kept to rounding, whatever the wire does to q (tests/dist/tracking_test.cpp measures it
// over 5000 steps). The sum comes first and is added once.
//
// In pieces of kPiece elements: a node needs room for its neighbours' pieces, not for their whole
// tensors, and a piece is still in the cache when it is mixed.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <set>

#include "dist/communicator.h"
#include "dist/topology.h"

namespace murmur {

constexpr int64_t kPiece = 1 << 18;

struct MixingOptions {
  std::string wire = "fp32";  // fp32: as it is (fp64 in fp64 runs), bf16, int8 in blocks of 64
  int64_t rounds = 1;         // of gossip, one after the other
  // Rounds accelerated by Chebyshev polynomials (Arioli & Scott, 2014): static symmetric W. The
  // first round is a plain one.
  bool chebyshev = false;
  // Replicas (CHOCO, Koloskova et al., arXiv 1902.00340), for static graphs: neighbours keep what
  // was sent so far, and the difference to it is sent:
  //   q = Q(x - xh)   xh <- xh + q   x_i <- x_i + gamma sum_j w_ij (xh_j - xh_i)
  // keep < 1: of a piece's elements the largest ones are sent.
  bool replicas = false;
  double keep = 1, gamma = 1;
};

class Mixer {
 public:
  // `what` names its messages.
  Mixer(Communicator& c, std::string what, Topology topology, MixingOptions options);

  // x <- W x, with the graph of this step; x: (n), the same n always.
  void mix(int64_t step, Tensor x);
  // The same in two halves, so that messages travel meanwhile: finish() adds to its x what the x of
  // the earliest begin() makes; what begin() was given must stay until then. One round, no
  // replicas.
  void begin(int64_t step, const Tensor& x);
  bool under_way() const { return !open_.empty(); }
  void finish(Tensor x);

  // An edge acts at both ends or at neither, also where a rank is lost in the middle of it. Once
  // that is known, hold(): x goes on, and what is under way keeps a copy of what it was. Then all
  // members that are left call settle() with their x: along each edge whose other end has added a
  // piece that this one has not, it is added. (With `chebyshev` that is exact in the first round,
  // with replicas where all neighbours were equally far.) Or forget(): x is as before mix().
  void hold();
  void settle(Tensor x);
  void forget() { open_.clear(); }

  // This step's graph is without these nodes' edges (ranks): both ends leave them out.
  void leave_out(std::set<int> ranks) { left_out_ = std::move(ranks); }
  // Other members: another graph; replicas start anew.
  void use(Topology topology);
  bool row_stochastic() const { return differences_; }

  // What replicas remember, each rank its own: to save and restore. (n) each; none before mix().
  std::vector<Tensor> memory() const;
  // Everybody has the same x: replicas begin with it, and it need not be sent.
  void begin_memory(const Tensor& x);

 private:
  struct Flight {        // one round of one piece
    int64_t number = 0;  // since use(): the same at all nodes
    int graph = 0;
    int64_t begin = 0;                   // of the piece in x
    Tensor own;                          // as the others see it
    Tensor sent;                         // the same, as it is on the wire
    std::vector<int> from, to;           // ranks
    std::vector<Tensor> theirs;          // as they come, and after landing decoded
    std::vector<double> weights, given;  // of what comes; of what goes, where rows are not 1
    std::unique_ptr<Pending> pending;
  };
  void start(int graph, const Tensor& piece, int64_t begin);
  Flight land();  // the first that is open: waits and decodes
  Tensor decoded(const Flight& flight, const Tensor& their) const;
  void add(Flight& flight, Tensor& x) const;
  void more_rounds(int64_t step, Tensor piece, int64_t begin, const Tensor& before);
  void mix_replicas(int64_t step, Tensor x);
  void guard();

  Communicator& c_;
  std::string what_;
  Topology topology_;
  MixingOptions options_;
  bool differences_ = true;  // rows of W sum to 1; else (push-sum) its columns do
  double rho_ = 0;
  std::set<int> left_out_;
  std::vector<int> members_;  // nodes, of this topology
  int rank_ = 0;              // among them
  std::deque<Flight> open_;   // in the order in which they were started, and will be added
  int64_t started_ = 0;
  Tensor replica_, pull_;  // xh_i, and sum_j w_ij (xh_j - xh_i)
  double first_move_ = 0;
  int64_t mixed_ = 0;
};

extern const std::vector<std::string> kWires;  // names, for options
// Of what one mix() applies: W itself, or the polynomial of W that its rounds make. None where that
// is not one symmetric matrix: W changes or is directed, or only a share is sent.
std::optional<double> smallest_eigenvalue(const Topology& topology, const MixingOptions& options);
// What one mix() of n elements of a type sends at this step, all ranks together; rounds: of each.
Traffic traffic_of(const Topology& topology, const MixingOptions& options, int64_t step, int64_t n,
                   DType type);

}  // namespace murmur
