// tests/dist/nccl_check.cpp - every collective over transport nccl against sums that are known.
//
//   RANK=r WORLD_SIZE=n .. nccl_check [--nodes N] [--deadline SECONDS] [--strategies]
//                                     [--leave RANK COUNT]
//
// One process a rank, started by torchrun, by a script, or by hand; without any of them a world of
// one. --strategies: nccl_strategies.h instead. --leave: RANK ends its process after COUNT
// barriers, and the others go on. Exit code 0 when all is right, 1 after an error, 2 after a wrong
// request.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "dist/collectives.h"
#include "dist/transport.h"
#include "tensor/ops.h"
#include "tests/dist/nccl_strategies.h"

using namespace murmur;

namespace {

int checks = 0;

// Small whole numbers, so that every type and every order of a sum has them exactly.
double number(int rank, int64_t i) { return double(rank + 1) * double(i % 5 - 1); }
double sum_of(int ranks, int64_t i) { return number(0, i) * ranks * (ranks + 1) / 2; }

// numbers(rank, 0), numbers(rank, 1), ..
template <class F>
Tensor filled(Shape shape, DType dtype, Device device, const F& f) {
  std::vector<double> values;
  for (int64_t i = 0; i < shape.numel(); i++) values.push_back(f(i));
  return to(device, Tensor::of(values, shape, dtype));
}

template <class F>
void expect(const std::string& what, const Tensor& x, const F& want) {
  std::vector<double> got = to_vector(x);
  for (size_t i = 0; i < got.size(); i++) {
    check(got[i] == want(int64_t(i)), [&] {
      return what + ": " + text(x) + ": element " + std::to_string(i) + " is " +
             std::to_string(got[i]) + " and not " + std::to_string(want(int64_t(i)));
    });
  }
  checks++;
}

const std::vector<Shape> kShapes = {{5}, {3, 4}, {1}, {70000}};

struct Kind {
  DType dtype;
  Device device;
};

Tensors own(Communicator& c, Kind k) {
  Tensors all;
  for (const Shape& shape : kShapes)
    all.push_back(filled(shape, k.dtype, k.device, [&](int64_t i) { return number(c.rank(), i); }));
  return all;
}

void sums(Communicator& c, Kind k) {
  for (const AlgorithmEntry& entry : algorithm_list()) {
    Tensors all = own(c, k);
    all_reduce(c, "sums", all, entry.algorithm);
    for (const Tensor& x : all)
      expect("all_reduce, " + entry.name, x, [&](int64_t i) { return sum_of(c.size(), i); });
  }
  for (Algorithm algorithm : {Algorithm::direct, Algorithm::ring}) {
    Tensors all = own(c, k);
    Pieces pieces = even_pieces(all, c.size());
    reduce_scatter(c, "scattered sums", pieces, algorithm);
    for (size_t t = 0; t < all.size(); t++) {
      int64_t begin = share_begin(all[t].numel(), c.rank(), c.size());
      expect("reduce_scatter", pieces[size_t(c.rank())][t],
             [&](int64_t i) { return sum_of(c.size(), begin + i); });
    }
    all_gather(c, "gathered sums", pieces, algorithm);
    for (const Tensor& x : all)
      expect("all_gather", x, [&](int64_t i) { return sum_of(c.size(), i); });
  }
}

// NCCL's own sum, which collectives.h leaves out in a world of one.
void native_sums(Communicator& c, Kind k) {
  for (Tensor& x : own(c, k)) {
    bool taken = c.native_all_reduce("native sums", x);
    check(taken == (k.device == Device::cuda), "native_all_reduce: on a GPU only");
    if (taken) expect("native", x, [&](int64_t i) { return sum_of(c.size(), i); });
  }
}

void copies(Communicator& c, Kind k) {
  int n = c.size();
  for (int root = 0; root < n; root++) {
    Tensors all = own(c, k);
    broadcast(c, "copies", root, all);
    for (const Tensor& x : all) expect("broadcast", x, [&](int64_t i) { return number(root, i); });
  }
  // The largest of (rank + 1) (i % 5 - 1): of rank 0 where it is negative.
  Tensor most = own(c, k)[1];
  all_reduce_max(c, "largest", most);
  expect("all_reduce_max", most, [&](int64_t i) { return number(i % 5 == 0 ? 0 : n - 1, i); });
  Pieces sends, receives;
  for (int r = 0; r < n; r++) {
    sends.push_back({filled({r + 2}, k.dtype, k.device,
                            [&](int64_t i) { return double(10 * c.rank() + r + i); })});
    receives.push_back({Tensor({c.rank() + 2}, k.dtype, k.device)});
  }
  all_to_all(c, "to all", sends, receives);
  for (int r = 0; r < n; r++) {
    expect("all_to_all", receives[size_t(r)][0],
           [&](int64_t i) { return double(10 * r + c.rank() + i); });
  }
}

// Several messages of one pair in order, sizes that differ, CPU and GPU in one exchange.
void order(Communicator& c) {
  int n = c.size(), next = (c.rank() + 1) % n, last = (c.rank() + n - 1) % n;
  if (n == 1) return;
  std::vector<Message> sends, receives;
  for (int i = 0; i < 7; i++) {
    Device device = i % 3 == 0 ? Device::cpu : Device::cuda;
    sends.push_back({next, filled({i + 1}, DType::f32, device,
                                  [&](int64_t j) { return double(100 * c.rank() + 10 * i + j); })});
    receives.push_back({last, Tensor({i + 1}, DType::f32, i % 2 ? Device::cpu : Device::cuda)});
  }
  c.exchange("in order", sends, receives);
  for (int i = 0; i < 7; i++) {
    expect("order", receives[size_t(i)].tensor,
           [&](int64_t j) { return double(100 * last + 10 * i + j); });
  }
}

// Two collectives under way at once, computing meanwhile; sums that feed the next exchange.
void overlap(Communicator& c, Kind k) {
  Tensors a = own(c, k), b = own(c, k), busy = own(c, k);
  Pieces summed = even_pieces(a, c.size()), gathered = even_pieces(b, c.size());
  ReduceScatter scatter(c, "overlapped sums", summed);
  AllGather gather(c, "overlapped copies", gathered);
  for (int i = 0; i < 20; i++) {
    for (Tensor& x : busy) ops::scale(1, x, {x});
    scatter.poll();
    gather.poll();
  }
  scatter.finish();
  gather.finish();
  for (size_t t = 0; t < b.size(); t++) {
    int64_t mine = share_begin(a[t].numel(), c.rank(), c.size());
    expect("overlapped sums", summed[size_t(c.rank())][t],
           [&](int64_t i) { return sum_of(c.size(), mine + i); });
    for (int r = 0; r < c.size(); r++) {
      int64_t begin = share_begin(b[t].numel(), r, c.size());
      expect("overlapped copies", gathered[size_t(r)][t],
             [&](int64_t i) { return number(r, begin + i); });
    }
  }
  // No wait of the host between these: the second reads what the first leaves on the engine.
  Tensor x = own(c, k)[3];
  for (int i = 0; i < 3; i++) {
    ops::scale(i == 1 ? 0.5 : 1, x, {x, i == 2});  // x, x / 2, 2 x
    all_reduce(c, "sums of sums", {x});
  }
  double n = c.size();
  expect("sums of sums", x, [&](int64_t i) { return sum_of(c.size(), i) * n * n; });
}

void everything(Communicator& c) {
  c.barrier();
  for (Kind k : {Kind{DType::f32, Device::cuda},
                 {DType::bf16, Device::cuda},
                 {DType::f32, Device::cpu},
                 {DType::f64, Device::cpu}}) {
    sums(c, k);
    native_sums(c, k);
    copies(c, k);
  }
  native_sums(c, {DType::f64, Device::cuda});
  order(c);
  overlap(c, {DType::f32, Device::cuda});
  overlap(c, {DType::f32, Device::cpu});
  c.barrier();
}

}  // namespace

int main(int argc, char** argv) {
  World world;
  world.device = Device::cuda;
  int leaver = -1, barriers = 0;
  bool strategies = false;
  for (int i = 1; i < argc; i++) {
    std::string flag = argv[i];
    auto value = [&] { return i + 1 < argc ? std::atof(argv[++i]) : 0; };
    if (flag == "--nodes") world.nodes = int64_t(value());
    if (flag == "--deadline") world.deadline = value();
    if (flag == "--strategies") strategies = true;
    if (flag == "--leave") {
      leaver = int(value());
      barriers = int(value());
    }
  }
  try {
    run_ranks("nccl", world, [&](Communicator& c) {
      if (leaver >= 0) {
        for (int step = 0;; step++) {
          c.at_step(step);
          if (step == barriers && c.rank() == leaver) _exit(0);
          c.barrier();
        }
      }
      if (strategies)
        checks += check_strategies(c);
      else
        everything(c);
      std::printf("rank %d of %d: %d checks passed, %lld bytes sent\n", c.rank(), c.size(), checks,
                  static_cast<long long>(c.total_traffic().bytes));
    });
  } catch (const InputError& error) {
    std::fprintf(stderr, "nccl_check: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "nccl_check: error: %s\n", error.what());
    return 1;
  }
  return 0;
}
