// dist/collectives.cpp - collectives over exchange().
#include "dist/collectives.h"

#include <bit>

#include "tensor/nearest.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

Tensors like(const Tensors& tensors) {
  Tensors result;
  for (const Tensor& x : tensors) result.emplace_back(x.shape(), x.dtype(), x.device());
  return result;
}

void copy(const Tensors& from, const Tensors& to) {
  for (size_t i = 0; i < from.size(); i++) {
    Tensor destination = to[i];
    ops::copy(from[i], destination);
  }
}

void add(const Tensors& x, const Tensors& to) {
  for (size_t i = 0; i < x.size(); i++) {
    Tensor destination = to[i];
    ops::scale(1, x[i], {destination, true});
  }
}

std::vector<Message> messages(int peer, const Tensors& tensors) {
  std::vector<Message> all;
  for (const Tensor& x : tensors) {
    if (x.numel() > 0) all.push_back({peer, x});
  }
  return all;
}

void append(std::vector<Message>& all, int peer, const Tensors& tensors) {
  for (Message& m : messages(peer, tensors)) all.push_back(std::move(m));
}

// Piece p travels p + 1, p + 2, .. , p and gathers a summand at each stop.
void ring_reduce_scatter(Communicator& c, const std::string& what, const Pieces& pieces) {
  int n = c.size(), rank = c.rank();
  int next = (rank + 1) % n, last = (rank + n - 1) % n;
  for (int round = 1; round < n; round++) {
    const Tensors &out = pieces[size_t((rank + n - round) % n)],
                  &in = pieces[size_t((rank + 2 * n - round - 1) % n)];
    Tensors received = like(in);
    c.exchange(what, messages(next, out), messages(last, received));
    add(received, in);
  }
}

void ring_all_gather(Communicator& c, const std::string& what, const Pieces& pieces) {
  int n = c.size(), rank = c.rank();
  int next = (rank + 1) % n, last = (rank + n - 1) % n;
  for (int round = 0; round < n - 1; round++) {
    c.exchange(what, messages(next, pieces[size_t((rank + n - round) % n)]),
               messages(last, pieces[size_t((rank + 2 * n - round - 1) % n)]));
  }
}

// Towards rank 0: whoever has bit `far` set hands its sum to the rank `far` below and is done.
void tree_reduce(Communicator& c, const std::string& what, const Tensors& tensors) {
  int n = c.size(), rank = c.rank();
  for (int far = 1; far < n; far *= 2) {
    if (rank % (2 * far) == far) {
      c.exchange(what, messages(rank - far, tensors), {});
    } else if (rank % (2 * far) == 0 && rank + far < n) {
      Tensors received = like(tensors);
      c.exchange(what, {}, messages(rank + far, received));
      add(received, tensors);
    }
  }
}

}  // namespace

const std::vector<AlgorithmEntry>& algorithm_list() {
  static const std::vector<AlgorithmEntry> list = {
      {"direct", "every piece straight to its owner: one round, sums in rank order",
       Algorithm::direct},
      {"ring", "from neighbour to neighbour: as many bytes, N - 1 rounds, one message at a time",
       Algorithm::ring},
      {"tree", "whole buffers along a binomial tree: few rounds, more bytes; for small models",
       Algorithm::tree},
  };
  return list;
}

Algorithm find_algorithm(const std::string& name) {
  return find_named("collectives", algorithm_list(), name).algorithm;
}

int rounds(Algorithm algorithm, int ranks) {
  if (algorithm == Algorithm::ring) return ranks - 1;
  if (algorithm == Algorithm::tree) return std::bit_width(unsigned(ranks - 1));
  return ranks > 1 ? 1 : 0;
}

int64_t share_begin(int64_t count, int rank, int ranks) { return count * rank / ranks; }

Pieces even_pieces(const Tensors& tensors, int ranks) {
  Pieces pieces{size_t(ranks)};
  for (const Tensor& x : tensors) {
    Tensor flat = x.view({x.numel()});
    for (int r = 0; r < ranks; r++)
      pieces[size_t(r)].push_back(
          flat.slice(share_begin(x.numel(), r, ranks), share_begin(x.numel(), r + 1, ranks)));
  }
  return pieces;
}

ReduceScatter::ReduceScatter(Communicator& c, std::string what, Pieces pieces)
    : c_(c), what_(std::move(what)), pieces_(std::move(pieces)) {
  std::vector<Message> sends, receives;
  for (int peer = 0; peer < c.size(); peer++) {
    received_.push_back(peer == c.rank() ? Tensors() : like(pieces_[size_t(c.rank())]));
    if (peer == c.rank()) continue;
    append(sends, peer, pieces_[size_t(peer)]);
    append(receives, peer, received_.back());
  }
  pending_ = c.start(what_, std::move(sends), std::move(receives));
}

// x_0 + x_1 + .. in this order, whichever is this rank's own.
void ReduceScatter::finish() {
  c_.wait(*pending_, what_);
  const Tensors& own = pieces_[size_t(c_.rank())];
  for (int peer = 1; peer < c_.size(); peer++) {
    const Tensors& sum = c_.rank() == 0 ? own : received_[0];
    add(peer == c_.rank() ? own : received_[size_t(peer)], sum);
  }
  if (c_.rank() != 0) copy(received_[0], own);
  received_.clear();
}

AllGather::AllGather(Communicator& c, std::string what, const Pieces& pieces)
    : c_(c), what_(std::move(what)) {
  std::vector<Message> sends, receives;
  for (int peer = 0; peer < c.size(); peer++) {
    if (peer == c.rank()) continue;
    append(sends, peer, pieces[size_t(c.rank())]);
    append(receives, peer, pieces[size_t(peer)]);
  }
  pending_ = c.start(what_, std::move(sends), std::move(receives));
}

void reduce_scatter(Communicator& c, const std::string& what, const Pieces& pieces,
                    Algorithm algorithm) {
  if (c.size() == 1) return;
  algorithm == Algorithm::ring ? ring_reduce_scatter(c, what, pieces)
                               : ReduceScatter(c, what, pieces).finish();
}

void all_gather(Communicator& c, const std::string& what, const Pieces& pieces,
                Algorithm algorithm) {
  if (c.size() == 1) return;
  algorithm == Algorithm::ring ? ring_all_gather(c, what, pieces)
                               : AllGather(c, what, pieces).finish();
}

void all_reduce(Communicator& c, const std::string& what, const Tensors& tensors,
                Algorithm algorithm) {
  if (c.size() == 1) return;
  if (algorithm == Algorithm::tree) {
    tree_reduce(c, what, tensors);
    return broadcast(c, what, 0, tensors);
  }
  Tensors left;
  for (const Tensor& x : tensors) {
    Tensor whole = x;
    if (!c.native_all_reduce(what, whole)) left.push_back(x);
  }
  if (left.empty()) return;
  Pieces pieces = even_pieces(left, c.size());
  reduce_scatter(c, what, pieces, algorithm);
  all_gather(c, what, pieces, algorithm);
}

void all_reduce_max(Communicator& c, const std::string& what, Tensor& x) {
  Pieces all{size_t(c.size())};
  for (int r = 0; r < c.size(); r++) all[size_t(r)] = r == c.rank() ? Tensors{x} : like({x});
  all_gather(c, what, all);
  for (int r = 0; r < c.size(); r++) {
    if (r != c.rank()) ops::zip(binary::maximum, x, all[size_t(r)][0], x);
  }
}

void broadcast(Communicator& c, const std::string& what, int root, const Tensors& tensors) {
  int n = c.size(), place = (c.rank() - root + n) % n;  // the root is at 0
  auto rank_at = [&](int p) { return (p + root) % n; };
  int far = 1;
  while (far < n) far *= 2;
  for (far /= 2; far > 0; far /= 2) {
    if (place % (2 * far) == 0 && place + far < n) {
      c.exchange(what, messages(rank_at(place + far), tensors), {});
    } else if (place % (2 * far) == far) {
      c.exchange(what, {}, messages(rank_at(place - far), tensors));
    }
  }
}

void all_to_all(Communicator& c, const std::string& what, const Pieces& sends,
                const Pieces& receives) {
  std::vector<Message> out, in;
  for (int peer = 0; peer < c.size(); peer++) {
    if (peer == c.rank()) {
      copy(sends[size_t(peer)], receives[size_t(peer)]);
    } else {
      append(out, peer, sends[size_t(peer)]);
      append(in, peer, receives[size_t(peer)]);
    }
  }
  if (c.size() > 1) c.exchange(what, std::move(out), std::move(in));
}

}  // namespace murmur
