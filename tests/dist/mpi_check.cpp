// tests/dist/mpi_check.cpp - the transport mpi at work, one process a rank.
//
//   mpirun -n N mpi_check ok           every collective, against sums that are known
//   .. late | killed | throws          what the others do when rank 1 sleeps, dies, or gives up
//   .. mixing                          rank 1 of 4 dies while others mix; what they have stays
//   .. bytes MIB                       all_reduce of MIB MiB, for those who count bytes on the wire
//   .. nodes COUNT                     a world of COUNT ranks is asked for
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <string>
#include <thread>

#include "dist/collectives.h"
#include "dist/mixing.h"
#include "dist/transport.h"

using namespace murmur;

namespace {

// A different small whole number for every rank and element: sums are exact in every type.
double value(int rank, int64_t i) { return double((i * 7 + rank * 3) % 5 + rank % 3); }

Tensor filled(int rank, int64_t count, DType dtype) {
  std::vector<double> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; i++) values[size_t(i)] = value(rank, i);
  return Tensor::of(values, {count}, dtype);
}

double sum_over_ranks(int ranks, int64_t i) {
  double sum = 0;
  for (int r = 0; r < ranks; r++) sum += value(r, i);
  return sum;
}

// Elements begin .. end of x are f(i).
template <class F>
void expect(const std::string& what, const Tensor& x, int64_t begin, int64_t end, F f) {
  std::vector<double> found = to_vector(x);
  for (int64_t i = begin; i < end; i++) {
    check(found[size_t(i)] == f(i), [&] {
      return fmt::format("{}: element {} of {} is {}, not {}", what, i, text(x), found[size_t(i)],
                         f(i));
    });
  }
}

void collectives(Communicator& c, int64_t count, DType dtype) {
  int n = c.size(), rank = c.rank();
  auto sum = [&](int64_t i) { return sum_over_ranks(n, i); };
  for (const AlgorithmEntry& entry : algorithm_list()) {
    std::string what = "all_reduce " + entry.name;
    Tensor x = filled(rank, count, dtype);
    all_reduce(c, what, {x}, entry.algorithm);
    expect(what, x, 0, count, sum);
  }
  for (Algorithm algorithm : {Algorithm::direct, Algorithm::ring}) {
    Tensor x = filled(rank, count, dtype);
    Pieces pieces = even_pieces({x}, n);
    reduce_scatter(c, "reduce_scatter", pieces, algorithm);
    expect("reduce_scatter", x, share_begin(count, rank, n), share_begin(count, rank + 1, n), sum);
    all_gather(c, "all_gather", pieces, algorithm);
    expect("all_gather", x, 0, count, sum);
  }
  Tensor most = filled(rank, count, dtype);
  all_reduce_max(c, "all_reduce_max", most);
  expect("all_reduce_max", most, 0, count, [&](int64_t i) {
    double largest = value(0, i);
    for (int r = 1; r < n; r++) largest = std::max(largest, value(r, i));
    return largest;
  });
  for (int root : {0, n - 1}) {
    Tensor x = filled(rank, count, dtype);
    broadcast(c, "broadcast", root, {x});
    expect("broadcast", x, 0, count, [&](int64_t i) { return value(root, i); });
  }
  Pieces sends, receives;  // rank r gets r elements fewer from everybody
  for (int r = 0; r < n; r++) {
    sends.push_back({filled(rank, std::max<int64_t>(0, count - r), dtype)});
    receives.push_back({Tensor({std::max<int64_t>(0, count - rank)}, dtype)});
  }
  all_to_all(c, "all_to_all", sends, receives);
  for (int r = 0; r < n; r++)
    expect("all_to_all", receives[size_t(r)][0], 0, std::max<int64_t>(0, count - rank),
           [&](int64_t i) { return value(r, i); });
}

// Many messages of a pair, started before any has arrived: first in, first out, whatever their
// size.
void order_of_a_pair(Communicator& c) {
  int next = (c.rank() + 1) % c.size(), last = (c.rank() + c.size() - 1) % c.size();
  std::vector<Message> sends, receives;
  for (int i = 0; i < 20; i++) {
    int64_t count = i % 4 == 0 ? 50000 : 3;
    sends.push_back({next, Tensor::of(std::vector<double>(size_t(count), i), {count})});
    receives.push_back({last, Tensor({count})});
  }
  c.exchange("order", sends, receives);
  for (int i = 0; i < 20; i++)
    expect("order", receives[size_t(i)].tensor, 0, 3, [&](int64_t) { return double(i); });
}

// The receiver leaves an exchange before its message is sent. The next message is still the next.
void left_before_its_end(Communicator& c) {
  if (c.rank() > 1) return;
  int other = 1 - c.rank();
  for (int i = 0; i < 20; i++) {
    Tensor first = Tensor::of({1, 1, 1, 1, 1}, {5}), second = Tensor::of({2, 2}, {2});
    if (c.rank() == 0) {
      c.start("left", {}, {{other, Tensor({5})}}).reset();
      Tensor found({2});
      c.exchange("ready", {{other, second}}, {});
      c.exchange("next", {}, {{other, found}});
      expect("next", found, 0, 2, [](int64_t) { return 2.0; });
    } else {
      c.exchange("ready", {}, {{other, Tensor({2})}});
      c.exchange("left", {{other, first}}, {});
      c.exchange("next", {{other, second}}, {});
    }
  }
}

void two_in_flight(Communicator& c) {
  int64_t count = 300000;
  Tensor x = filled(c.rank(), count, DType::f32), y = filled(c.rank() + 1, count, DType::f32);
  ReduceScatter first(c, "first", even_pieces({x}, c.size()));
  ReduceScatter second(c, "second", even_pieces({y}, c.size()));
  first.poll();
  second.finish();
  first.finish();
  AllGather third(c, "third", even_pieces({x}, c.size())),
      fourth(c, "fourth", even_pieces({y}, c.size()));
  fourth.finish();
  third.finish();
  expect("first", x, 0, count, [&](int64_t i) { return sum_over_ranks(c.size(), i); });
  expect("second", y, 0, count, [&](int64_t i) {
    double sum = 0;
    for (int r = 0; r < c.size(); r++) sum += value(r + 1, i);
    return sum;
  });
}

void ok(Communicator& c) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    for (int64_t count : {1, 2, 3, 7, 1000, 600000}) collectives(c, count, dtype);
  }
  if (c.size() > 1) order_of_a_pair(c);
  if (c.size() > 1) left_before_its_end(c);
  two_in_flight(c);
  raise(SIGPIPE);  // a write to a rank that has died raises it; it is to end nobody else
  c.barrier();
  int64_t before = c.total_traffic().bytes;
  Tensor x = filled(c.rank(), 3000, DType::f32);
  all_reduce(c, "counted", {x});
  int64_t n = c.size(), own = share_begin(3000, c.rank() + 1, n) - share_begin(3000, c.rank(), n);
  check(c.total_traffic().bytes - before == 4 * (3000 - own + (n - 1) * own),
        "traffic: miscounted");
  if (c.rank() == 0) fmt::print("ok\n");
}

void all_reduces(Communicator& c, int64_t rounds, const std::function<void()>& at_round_3) {
  Tensor x = Tensor::zeros({100000});
  for (int64_t round = 0; round < rounds; round++) {
    c.at_step(round);
    if (round == 3 && c.rank() == 1) at_round_3();
    all_reduce(c, "gradients", {x});
  }
}

// A ring of four: 3 does not talk to 1 and mixes all of x with 0 and 2, which wait for 1 meanwhile.
void mixing(Communicator& c) {
  c.survive();
  const int64_t size = kPiece + 1000;
  Tensor x = filled(c.rank(), size, DType::f64), mixed = Tensor::zeros({1});
  Mixer mixer(c, "weights", make_topology({}, c.size()), {});
  try {
    if (c.rank() == 1) {
      c.exchange("3 has mixed", {}, {{3, mixed}});
      raise(SIGKILL);
    }
    mixer.mix(1, x);
    if (c.rank() == 3) c.exchange("3 has mixed", {{1, mixed}}, {});
    c.barrier();
  } catch (const RankLost&) {
    mixer.hold();
  }
  std::vector<int> left = c.agree_on_survivors();
  c.set_members(left);
  mixer.settle(x);
  all_reduce(c, "sum", {x});
  std::vector<double> sum = to_vector(x);
  for (int64_t i = 0; i < size; i++) {
    double before = 0;
    for (int rank : left) before += value(rank, i);
    check(std::abs(sum[size_t(i)] - before) < 1e-12, [&] {
      return fmt::format("mixing: element {} sums to {}, not {}", i, sum[size_t(i)], before);
    });
  }
  if (c.rank() == 0) fmt::print("{} are left\n", left.size());
}

void bytes(Communicator& c, int64_t mib) {
  Tensor x = Tensor::zeros({mib << 18});
  auto began = std::chrono::steady_clock::now();
  all_reduce(c, "gradients", {x});
  c.barrier();
  std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - began;
  fmt::print("rank {} sent {} bytes in {:.3f} s\n", c.rank(), c.total_traffic().bytes,
             seconds.count());
}

// Rank 0 comes so late that the others have gone on without it; or as late as they still wait.
void survivors(Communicator& c, double late) {
  c.survive();
  if (c.rank() == 0) std::this_thread::sleep_for(std::chrono::duration<double>(late));
  fmt::print("rank {}: {} are left\n", c.rank(), fmt::join(c.agree_on_survivors(), ", "));
}

}  // namespace

int main(int argc, char** argv) {
  std::string mode = argc > 1 ? argv[1] : "ok";
  World world;
  world.deadline = mode == "late" || mode == "killed" || mode == "mixing" ? 1
                   : mode == "throws"                                     ? 5
                                                                          : 30;
  if (mode == "nodes" && argc > 2) world.nodes = std::atoi(argv[2]);
  try {
    run_ranks("mpi", world, [&](Communicator& c) {
      if (mode == "late")
        all_reduces(c, 5, [] { std::this_thread::sleep_for(std::chrono::seconds(20)); });
      else if (mode == "killed")
        all_reduces(c, 5, [] { raise(SIGKILL); });
      else if (mode == "throws")
        all_reduces(c, 5, [] { throw InputError("data: rank 1 cannot read it"); });
      else if (mode == "survivors")
        survivors(c, argc > 2 ? std::atof(argv[2]) : 0);
      else if (mode == "mixing")
        mixing(c);
      else if (mode == "bytes")
        bytes(c, argc > 2 ? std::atoi(argv[2]) : 64);
      else
        ok(c);
    });
  } catch (const InputError& error) {
    fmt::print(stderr, "mpi_check: {}\n", error.what());
    return 2;
  }
  return 0;
}
