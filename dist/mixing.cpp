// dist/mixing.cpp - pieces sent, received, decoded, and added in one weighted sum.
#include "dist/mixing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "dist/collectives.h"
#include "dist/topology_report.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

// Calls f(begin, end) piece by piece.
template <class F>
void over_pieces(int64_t n, const F& f) {
  for (int64_t begin = 0; begin < n; begin += kPiece) f(begin, std::min(n, begin + kPiece));
}

int64_t kept(double keep, int64_t n) {
  return std::clamp(int64_t(std::ceil(keep * double(n))), int64_t(1), n);
}

// Which of a changing topology's graphs.
int graph_of(const Topology& topology, const MixingOptions& options, int64_t step, int64_t round) {
  return int(((step - 1) * options.rounds + round) % topology.rounds());
}

int64_t bytes_on_wire(const MixingOptions& options, int64_t n, DType type) {
  if (options.keep < 1) return 8 * kept(options.keep, n);
  if (options.wire == "int8") return 4 * packed_words(n);
  return n * int64_t(size_of(options.wire == "bf16" ? DType::bf16 : type));
}

// Chebyshev's rounds: x_{k+1} = x_{k-1} + omega_k (W x_k - x_{k-1}), with omega_0 = 2.
double next_omega(double rho, double omega) { return 1 / (1 - rho * rho * omega / 4); }

Tensor copy_of(const Tensor& x, DType type) {
  Tensor copy(x.shape(), type, x.device());
  ops::copy(x, copy);
  return copy;
}

// The k elements largest in size: their places, then their values as bits of fp32.
Tensor largest(const Tensor& x, int64_t k) {
  Tensor host = copy_of(to(Device::cpu, x), DType::f32), packed({2 * k}, DType::i32);
  const float* values = host.data<float>();
  std::vector<int32_t> places(size_t(x.numel()));
  for (size_t i = 0; i < places.size(); i++) places[i] = int32_t(i);
  std::nth_element(places.begin(), places.begin() + k - 1, places.end(), [&](int32_t a, int32_t b) {
    float x = std::abs(values[a]), y = std::abs(values[b]);
    return x != y ? x > y : a < b;
  });
  std::sort(places.begin(), places.begin() + k);
  for (int64_t i = 0; i < k; i++) {
    packed.data<int32_t>()[i] = places[size_t(i)];
    packed.data<int32_t>()[k + i] = bit_cast<int32_t>(values[places[size_t(i)]]);
  }
  return to(x.device(), packed);
}

void scatter(const Tensor& packed, Tensor& x) {
  Tensor here = to(Device::cpu, packed), host = Tensor::zeros(x.shape());
  int64_t k = packed.numel() / 2;
  for (int64_t i = 0; i < k; i++)
    host.data<float>()[here.data<int32_t>()[i]] = bit_cast<float>(here.data<int32_t>()[k + i]);
  ops::copy(host, x);
}

}  // namespace

const std::vector<std::string> kWires = {"fp32", "bf16", "int8"};

Mixer::Mixer(Communicator& c, std::string what, Topology topology, MixingOptions options)
    : c_(c), what_(std::move(what)), topology_(topology), options_(std::move(options)) {
  use(std::move(topology));
}

void Mixer::use(Topology topology) {
  topology_ = std::move(topology);
  TopologyReport w = report(topology_);
  differences_ = w.row_stochastic;
  check(topology_.nodes() == c_.size(), "mixing: a graph of another size than the world");
  bool fixed = topology_.rounds() == 1;
  if (options_.replicas && !fixed) {
    throw InputError(
        "topology: replicas (strategy.wire int8, or strategy.keep) need a graph that "
        "stays the same; use a static one, or wire bf16");
  }
  if (options_.chebyshev) {
    if (!fixed || topology_.directed())
      throw InputError(
          "strategy.chebyshev: needs a static, symmetric topology; use ring, torus, ..");
    rho_ = w.rho;
  }
  replica_ = pull_ = Tensor();
  members_ = c_.members();
  rank_ = c_.rank();
  open_.clear();
  started_ = 0;
  left_out_.clear();
  mixed_ = 0;
}

void Mixer::start(int graph, const Tensor& piece, int64_t begin) {
  int64_t n = piece.numel();
  Flight f;
  f.number = started_++;
  f.graph = graph;
  f.begin = begin;
  if (options_.keep < 1) {
    f.sent = largest(piece, kept(options_.keep, n));
    f.own = Tensor(piece.shape(), piece.dtype(), piece.device());
    scatter(f.sent, f.own);
  } else if (options_.wire == "int8") {
    f.sent = Tensor({packed_words(n)}, DType::i32, piece.device());
    ops::quantize(piece, f.sent);
    f.own = Tensor(piece.shape(), piece.dtype(), piece.device());
    ops::dequantize(f.sent, f.own);
  } else {
    bool half = options_.wire == "bf16";
    f.own = half || !differences_ ? copy_of(piece, half ? DType::bf16 : piece.dtype()) : piece;
    f.sent = f.own;
  }
  std::vector<Message> sends, receives;
  bool isolated = left_out_.count(c_.rank()) > 0;
  for (const Topology::In& in : topology_.in(graph, c_.rank())) {
    if (isolated || left_out_.count(in.peer)) continue;
    f.from.push_back(in.peer);
    f.theirs.push_back(Tensor(f.sent.shape(), f.sent.dtype(), f.sent.device()));
    f.weights.push_back(in.weight);
    receives.push_back({in.peer, f.theirs.back()});
  }
  for (int peer : topology_.out(graph, c_.rank())) {
    if (isolated || left_out_.count(peer)) continue;
    f.to.push_back(peer);
    sends.push_back({peer, f.sent});
    if (!differences_) f.given.push_back(topology_.weight(graph, peer, c_.rank()));
  }
  f.pending = c_.start(what_, std::move(sends), std::move(receives));
  open_.push_back(std::move(f));
}

Tensor Mixer::decoded(const Flight& f, const Tensor& their) const {
  if (f.sent.dtype() != DType::i32) return their;
  Tensor x(f.own.shape(), f.own.dtype(), f.own.device());
  options_.keep < 1 ? scatter(their, x) : ops::dequantize(their, x);
  return x;
}

Mixer::Flight Mixer::land() {
  c_.wait(*open_.front().pending, what_);
  Flight f = std::move(open_.front());
  open_.pop_front();
  for (Tensor& their : f.theirs) their = decoded(f, their);
  return f;
}

void Mixer::add(Flight& f, Tensor& x) const {
  if (differences_) {
    if (!f.theirs.empty()) ops::mix(x, f.own, f.theirs, f.weights, x);
    return;
  }
  // What a node gives away it loses, listener by listener: q is then counted from 0.
  Tensor nothing = Tensor::zeros(f.own.shape(), f.own.dtype(), f.own.device());
  std::vector<Tensor> moved = f.theirs;
  std::vector<double> weights = f.weights;
  for (double w : f.given) {
    moved.push_back(f.own);
    weights.push_back(-w);
  }
  ops::mix(x, nothing, moved, weights, x);
}

void Mixer::mix(int64_t step, Tensor x) {
  if (topology_.nodes() == 1) return;
  if (options_.replicas) return mix_replicas(step, x);
  int graph = graph_of(topology_, options_, step, 0);
  std::vector<Tensor> pieces;
  over_pieces(x.numel(),
              [&](int64_t begin, int64_t end) { pieces.push_back(x.slice(begin, end)); });
  for (size_t i = 0; i < pieces.size(); i++) {
    int64_t begin = int64_t(i) * kPiece;
    if (open_.empty()) start(graph, pieces[i], begin);
    if (options_.rounds == 1 && i + 1 < pieces.size())
      start(graph, pieces[i + 1], begin + kPiece);  // travels meanwhile
    Tensor before = options_.chebyshev ? copy_of(pieces[i], x.dtype()) : Tensor();
    Flight flight = land();
    add(flight, pieces[i]);
    more_rounds(step, pieces[i], begin, before);
  }
}

void Mixer::more_rounds(int64_t step, Tensor piece, int64_t begin, const Tensor& before) {
  Tensor last = before;
  double omega = 2;
  for (int64_t k = 1; k < options_.rounds; k++) {
    Tensor now = options_.chebyshev ? copy_of(piece, piece.dtype()) : Tensor();
    start(graph_of(topology_, options_, step, k), piece, begin);
    Flight flight = land();
    add(flight, piece);
    if (!options_.chebyshev) continue;
    omega = next_omega(rho_, omega);
    ops::scale(-1, last, {piece, true});  // as a difference, so that rounded factors keep the mean
    ops::scale(omega, piece, {last, true});
    ops::copy(last, piece);
    last = now;
  }
}

void Mixer::begin_memory(const Tensor& x) {
  if (!options_.replicas) return;
  replica_ = copy_of(x, x.dtype());
  pull_ = Tensor::zeros(x.shape(), x.dtype(), x.device());
}

std::vector<Tensor> Mixer::memory() const {
  return replica_ ? std::vector<Tensor>{replica_, pull_} : std::vector<Tensor>{};
}

void Mixer::mix_replicas(int64_t step, Tensor x) {
  if (!replica_) {
    for (Tensor* memory : {&replica_, &pull_})
      *memory = Tensor::zeros(x.shape(), x.dtype(), x.device());
  }
  if (!left_out_.empty()) return;  // what neighbours miss now they would miss for ever
  for (int64_t k = 0; k < options_.rounds; k++) {
    over_pieces(x.numel(), [&](int64_t begin, int64_t end) {
      Tensor piece = x.slice(begin, end), replica = replica_.slice(begin, end),
             pull = pull_.slice(begin, end), difference = copy_of(piece, x.dtype());
      ops::scale(-1, replica, {difference, true});
      start(graph_of(topology_, options_, step, k), difference, begin);
      Flight flight = land();
      ops::scale(1, flight.own, {replica, true});
      if (!flight.theirs.empty()) ops::mix(pull, flight.own, flight.theirs, flight.weights, pull);
      ops::scale(options_.gamma, pull, {piece, true});
    });
  }
  guard();
}

// A gamma that is too large lets the differences between nodes grow without end.
void Mixer::guard() {
  if (mixed_++ % 10 != 0) return;
  auto square = [](const Tensor& x) {
    Tensor squares({1}, DType::f64, x.device());
    ops::sum_of_squares(x, squares);
    return item(squares);
  };
  double move = square(pull_), size = square(replica_);
  if (mixed_ < 30) first_move_ = std::max(first_move_, move);
  if (move <= std::max(size / 4, 4 * first_move_)) return;
  throw Error(fmt::format("{}: compressed gossip diverges; lower --strategy.gamma ({} now)", what_,
                          options_.gamma));
}

void Mixer::begin(int64_t step, const Tensor& x) {
  if (topology_.nodes() == 1) return;
  over_pieces(x.numel(), [&](int64_t begin, int64_t end) {
    start(graph_of(topology_, options_, step, 0), x.slice(begin, end), begin);
  });
}

void Mixer::finish(Tensor x) {
  if (topology_.nodes() == 1) return;
  over_pieces(x.numel(), [&](int64_t begin, int64_t end) {
    Tensor piece = x.slice(begin, end);
    Flight flight = land();
    add(flight, piece);
  });
}

void Mixer::hold() {
  for (Flight& flight : open_) flight.own = copy_of(flight.own, flight.own.dtype());
}

// A neighbour that has added a piece has sent its own before, so it arrives. From there it was
// taken away, or given: edge by edge, as for rows that do not sum to 1.
void Mixer::settle(Tensor x) {
  Tensor added = Tensor::zeros({c_.nodes()}, DType::f64);  // flights, by node; of the lost none
  added.data<double>()[c_.node()] = double(started_ - int64_t(open_.size()));
  all_reduce(c_, what_, {added});
  for (; !open_.empty(); open_.pop_front()) {
    Flight& f = open_.front();
    auto has_added = [&](int rank) {
      return added.data<double>()[members_[size_t(rank)]] > double(f.number);
    };
    std::set<int> behind;
    for (size_t i = 0; i < members_.size(); i++)
      if (!has_added(int(i))) behind.insert(members_[i]);
    std::vector<Tensor> moved;
    std::vector<double> weights;
    if (behind.size() < members_.size()) c_.wait(*f.pending, what_, behind);
    for (size_t i = 0; i < f.from.size(); i++) {
      if (!has_added(f.from[i])) continue;
      moved.push_back(decoded(f, f.theirs[i]));
      weights.push_back(f.weights[i]);
    }
    for (int peer : f.to) {
      if (!has_added(peer)) continue;
      moved.push_back(f.own);
      weights.push_back(-topology_.weight(f.graph, peer, rank_));
    }
    if (moved.empty()) continue;
    auto piece_of = [&](Tensor& whole) { return whole.slice(f.begin, f.begin + f.own.numel()); };
    Tensor piece = piece_of(x), to = options_.replicas ? piece_of(pull_) : piece;
    ops::mix(to, Tensor::zeros(f.own.shape(), f.own.dtype(), f.own.device()), moved, weights, to);
    if (options_.replicas) ops::scale(options_.gamma, to, {piece, true});
  }
}

std::optional<double> smallest_eigenvalue(const Topology& topology, const MixingOptions& options) {
  if (topology.rounds() > 1 || topology.directed() || options.keep < 1) return {};
  Tridiagonal w = tridiagonal(mixing_matrix(topology, 0));
  double rho = report(topology).rho, smallest = 1;
  for (int i = 0; i + 1 < topology.nodes(); i++) {  // but for the last, 1
    double lambda = eigenvalue(w, i);
    if (options.replicas) lambda = 1 - options.gamma * (1 - lambda);
    double last = 1, now = lambda, omega = 2;
    for (int64_t k = 1; k < options.rounds; k++) {
      omega = options.chebyshev ? next_omega(rho, omega) : 1;
      last = std::exchange(now, last + omega * (lambda * now - last));
    }
    smallest = std::min(smallest, now);
  }
  return smallest;
}

Traffic traffic_of(const Topology& topology, const MixingOptions& options, int64_t step, int64_t n,
                   DType type) {
  Traffic all;
  if (topology.nodes() == 1) return all;
  for (int64_t k = 0; k < options.rounds; k++) {
    int64_t messages = 0;
    for (int i = 0; i < topology.nodes(); i++)
      messages += int64_t(topology.out(graph_of(topology, options, step, k), i).size());
    over_pieces(n, [&](int64_t begin, int64_t end) {
      all += {messages * bytes_on_wire(options, end - begin, type), messages, 1};
    });
  }
  return all;
}

}  // namespace murmur
