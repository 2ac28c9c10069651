// Collectives beside sums by hand; what goes wrong has a name.
#include "dist/collectives.h"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "dist/ownership.h"
#include "dist/transport.h"
#include "tensor/ops.h"

using namespace murmur;

namespace {

constexpr double kDeadline = 30;

void on_threads(int ranks, const std::function<void(Communicator&)>& work,
                double deadline = kDeadline) {
  run_ranks("threads", {ranks, deadline, Device::cpu}, work);
}

// Of rank r: element i is r + i / 8; sums are exact.
Tensor numbers(int rank, int64_t count, DType dtype = DType::f64) {
  std::vector<double> values;
  for (int64_t i = 0; i < count; i++) values.push_back(rank + double(i % 64) / 8);
  return Tensor::of(values, {count}, dtype);
}
double sum_at(int64_t i, int ranks) {
  return ranks * (ranks - 1) / 2.0 + ranks * double(i % 64) / 8;
}

}  // namespace

TEST_CASE("collectives of any algorithm, for counts that ranks do not divide, and for none") {
  for (const AlgorithmEntry& entry : algorithm_list()) {
    for (int ranks : {1, 2, 3, 4, 5, 8}) {
      for (int64_t count : {0, 1, 2, 7, 64, 1001}) {
        CAPTURE(entry.name);
        CAPTURE(ranks);
        CAPTURE(count);
        std::atomic<int> wrong = 0;
        on_threads(ranks, [&](Communicator& c) {
          auto expect = [&](const Tensor& x, auto value) {
            std::vector<double> all = to_vector(x);
            for (int64_t i = 0; i < x.numel(); i++) wrong += all[size_t(i)] != value(i);
          };
          Tensor x = numbers(c.rank(), count);
          all_reduce(c, "x", {x}, entry.algorithm);
          expect(x, [&](int64_t i) { return sum_at(i, ranks); });

          if (entry.algorithm != Algorithm::tree) {
            Tensor y = numbers(c.rank(), count);
            Pieces pieces = even_pieces({y}, ranks);
            reduce_scatter(c, "y", pieces, entry.algorithm);
            int64_t begin = share_begin(count, c.rank(), ranks);
            expect(pieces[size_t(c.rank())][0],
                   [&](int64_t i) { return sum_at(begin + i, ranks); });
            all_gather(c, "y", pieces, entry.algorithm);
            expect(y, [&](int64_t i) { return sum_at(i, ranks); });
          }

          int root = ranks - 1;
          Tensor z = numbers(c.rank(), count);
          broadcast(c, "z", root, {z});
          expect(z, [&](int64_t i) { return root + double(i % 64) / 8; });

          Tensor largest = numbers(c.rank(), count);
          all_reduce_max(c, "largest", largest);
          expect(largest, [&](int64_t i) { return ranks - 1 + double(i % 64) / 8; });

          Pieces sends, receives;
          for (int peer = 0; peer < ranks; peer++) {
            sends.push_back({numbers(10 * c.rank() + peer, count), numbers(peer, 3)});
            receives.push_back({Tensor({count}, DType::f64), Tensor({3}, DType::f64)});
          }
          all_to_all(c, "all", sends, receives);
          for (int peer = 0; peer < ranks; peer++)
            expect(receives[size_t(peer)][0],
                   [&](int64_t i) { return 10 * peer + c.rank() + double(i % 64) / 8; });
          c.barrier();
        });
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("a sum does not depend on who is early") {
  // 1e16 + 1 - 1e16 is 0 or 1, as one adds.
  for (const AlgorithmEntry& entry : algorithm_list()) {
    std::vector<double> seen;
    for (int late = 0; late < 3; late++) {
      on_threads(3, [&](Communicator& c) {
        if (c.rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(20));
        Tensor x = Tensor::of({c.rank() == 0 ? 1e16 : c.rank() == 1 ? 1 : -1e16}, {1}, DType::f64);
        all_reduce(c, "x", {x}, entry.algorithm);
        if (c.rank() == 0) seen.push_back(item(x));
      });
    }
    CHECK(seen[0] == seen[1]);
    CHECK(seen[1] == seen[2]);
  }
}

TEST_CASE("exchanges under way together keep their order") {
  on_threads(3, [](Communicator& c) {
    std::vector<Tensor> xs;
    std::vector<Pieces> pieces;
    std::vector<std::unique_ptr<ReduceScatter>> sums;
    for (int k = 0; k < 6; k++) {
      xs.push_back(numbers(c.rank() + k, 10 + k));
      pieces.push_back(even_pieces({xs.back()}, 3));
      sums.push_back(std::make_unique<ReduceScatter>(c, "x", pieces.back()));
      if (k % 2) sums[0]->poll();
    }
    for (int k = 5; k >= 0; k--) sums[size_t(k)]->finish();  // not in the order they began
    for (int k = 0; k < 6; k++) {
      Tensor own = pieces[size_t(k)][size_t(c.rank())][0];
      int64_t begin = share_begin(10 + k, c.rank(), 3);
      for (int64_t i = 0; i < own.numel(); i++)
        REQUIRE(own.data<double>()[i] == sum_at(begin + i, 3) + 3 * k);
    }
  });
}

TEST_CASE("what a rank sends is counted, by what it is") {
  on_threads(4, [](Communicator& c) {
    Tensor x = numbers(c.rank(), 64, DType::f32);
    all_reduce(c, "gradients", {x});
    all_reduce(c, "gradients by ring", {x}, Algorithm::ring);
    Traffic direct = c.traffic().at("gradients"), ring = c.traffic().at("gradients by ring");
    CHECK(direct.bytes == 2 * 3 * 16 * 4);  // 2 (N - 1) / N of 256 bytes
    CHECK(direct.messages == 6);
    CHECK(direct.rounds == 2);
    CHECK(ring.bytes == direct.bytes);
    CHECK(ring.rounds == 6);
    CHECK(c.total_traffic().bytes == 2 * direct.bytes);
    c.reset_traffic();
    CHECK(c.total_traffic().messages == 0);
  });
}

TEST_CASE("a missing rank is named, with step and tensor, within the deadline") {
  auto begin = std::chrono::steady_clock::now();
  auto run = [&] {
    on_threads(
        3,
        [&](Communicator& c) {
          c.at_step(12);
          if (c.rank() == 1) {  // busy with something else
            std::this_thread::sleep_for(std::chrono::milliseconds(600));
            return;
          }
          Tensor x = numbers(c.rank(), 5);
          all_reduce(c, "gradients of block 3", {x});
        },
        0.2);
  };
  CHECK_THROWS_WITH(run(), doctest::Contains("step 12: gradients of block 3: rank 1 is missing: "
                                             "nothing for 0.2 s"));
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  CHECK(seconds < 5);
}

TEST_CASE(
    "where one rank throws the others end at once, and its exception is the one that counts") {
  auto run = [](bool input) {
    on_threads(4, [&](Communicator& c) {
      if (c.rank() == 2 && input) throw InputError("data: 'x' is no folder");
      if (c.rank() == 2) throw Error("the disk is full");
      c.barrier();
    });
  };
  CHECK_THROWS_WITH_AS(run(true), "data: 'x' is no folder", InputError);
  CHECK_THROWS_WITH_AS(run(false), "the disk is full", Error);
}

TEST_CASE("ranks that expect different things, strangers and oneself are refused") {
  CHECK_THROWS_WITH(
      on_threads(2,
                 [](Communicator& c) {
                   Tensor x = numbers(0, c.rank() == 0 ? 4 : 5);
                   c.rank() == 0 ? c.exchange("x", {{1, x}}, {}) : c.exchange("x", {}, {{0, x}});
                 }),
      doctest::Contains("rank 0 sends fp64 (4) cpu, rank 1 expects fp64 (5) cpu"));
  CHECK_THROWS_WITH(on_threads(2,
                               [](Communicator& c) {
                                 c.exchange("x", {{2, numbers(0, 1)}}, {});
                               }),
                    doctest::Contains("cannot talk to rank 2"));
  CHECK_THROWS_WITH(on_threads(2,
                               [](Communicator& c) {
                                 c.exchange("x", {{c.rank(), numbers(0, 1)}}, {});
                               }),
                    doctest::Contains("cannot talk to rank"));
  CHECK_THROWS_WITH_AS(run_ranks("thread", {2, 1, Device::cpu}, [](Communicator&) {}),
                       doctest::Contains("did you mean 'threads'?"), InputError);
  CHECK_THROWS_WITH_AS(run_ranks("self", {2, 1, Device::cpu}, [](Communicator&) {}),
                       doctest::Contains("one rank, not 2"), InputError);
}
