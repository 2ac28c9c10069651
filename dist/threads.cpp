// dist/threads.cpp - N ranks in one process. A message is copied once, from the sender's tensor
// into the receiver's, by the receiver.
//
// Whoever is first waits for the other on a condition variable, never by spinning: more ranks than
// cores is the normal case. Nothing depends on who comes first.
#include <omp.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>

#include "dist/transport.h"

namespace murmur {
namespace {

struct Letter {
  Tensor tensor;
  bool taken = false;
};

// Letters of one pair of ranks: the n-th that is sent is the n-th that was expected, of each
// generation of members.
using Number = std::pair<int, int64_t>;
struct Box {
  std::map<int, int64_t> sent, expected;  // by generation
  std::map<Number, std::shared_ptr<Letter>> letters;
};

// What the threads share.
struct Office {
  explicit Office(int ranks) : boxes(size_t(ranks * ranks)), news(size_t(ranks)), gone(ranks) {}

  std::mutex mutex;
  std::vector<Box> boxes;                     // [to * ranks + from]
  std::vector<std::condition_variable> news;  // of letters for, or taken from, a rank
  std::vector<std::string> gone;              // why a rank ended early

  void leave(int rank, const std::string& why) {
    std::lock_guard lock(mutex);
    gone[size_t(rank)] = why;
    for (auto& each : news) each.notify_all();
  }
};

class ThreadsCommunicator final : public Communicator {
 public:
  ThreadsCommunicator(Office& office, int rank, int size, double deadline)
      : Communicator(rank, size, deadline), office_(office) {}

 private:
  class Batch final : public Pending {
   public:
    Batch(Office& office, int rank, int size, int generation, const std::vector<Message>& sends,
          const std::vector<Message>& receives)
        : office_(office), rank_(rank), size_(size) {
      std::lock_guard lock(office.mutex);
      for (const Message& m : sends) {
        auto letter = std::make_shared<Letter>(Letter{m.tensor});
        sent_.push_back({m.peer, letter});
        Box& box = office.boxes[size_t(m.peer * size_ + rank_)];
        box.letters[{generation, box.sent[generation]++}] = letter;
        office.news[size_t(m.peer)].notify_all();
      }
      for (const Message& m : receives) {
        Box& box = office.boxes[size_t(rank_ * size_ + m.peer)];
        open_.push_back({m, {generation, box.expected[generation]++}});
      }
    }

    bool poll() override {
      std::unique_lock lock(office_.mutex);
      take_what_is_there(lock);
      return done();
    }

    std::vector<int> wait_until(std::chrono::steady_clock::time_point deadline,
                                const std::set<int>& but) override {
      std::unique_lock lock(office_.mutex);
      while (true) {
        take_what_is_there(lock);
        std::vector<int> missing = open_peers(but);
        if (missing.empty()) return {};
        for (int peer : missing) {
          if (!office_.gone[size_t(peer)].empty()) return {peer};
        }
        if (office_.news[size_t(rank_)].wait_until(lock, deadline) == std::cv_status::timeout) {
          take_what_is_there(lock);
          return open_peers(but);
        }
      }
    }

   private:
    // Copies without the lock.
    void take_what_is_there(std::unique_lock<std::mutex>& lock) {
      for (auto it = open_.begin(); it != open_.end();) {
        const Message& m = it->message;
        auto& letters = office_.boxes[size_t(rank_ * size_ + m.peer)].letters;
        auto found = letters.find(it->number);
        if (found == letters.end()) {
          ++it;
          continue;
        }
        std::shared_ptr<Letter> letter = found->second;
        letters.erase(found);
        lock.unlock();
        const Tensor &from = letter->tensor, &to = m.tensor;
        check(from.bytes() == to.bytes() && from.dtype() == to.dtype(), [&] {
          return "exchange: rank " + std::to_string(m.peer) + " sends " + text(from) + ", rank " +
                 std::to_string(rank_) + " expects " + text(to);
        });
        std::memcpy(to.raw(), from.raw(), from.bytes());
        lock.lock();
        letter->taken = true;
        office_.news[size_t(m.peer)].notify_all();
        open_.erase(it);
        it = open_.begin();  // others may have come meanwhile
      }
      std::erase_if(sent_, [](const Sent& s) { return s.letter->taken; });
    }
    bool done() const { return open_.empty() && sent_.empty(); }
    std::vector<int> open_peers(const std::set<int>& but) const {
      std::set<int> peers;
      for (const Open& o : open_) peers.insert(o.message.peer);
      for (const Sent& s : sent_) peers.insert(s.peer);
      for (int peer : but) peers.erase(peer);
      return {peers.begin(), peers.end()};
    }

    struct Open {
      Message message;
      Number number;
    };
    struct Sent {
      int peer;
      std::shared_ptr<Letter> letter;
    };
    Office& office_;
    int rank_, size_;
    std::vector<Open> open_;  // not received yet
    std::vector<Sent> sent_;  // not taken yet
  };

  std::unique_ptr<Pending> post(const std::vector<Message>& sends,
                                const std::vector<Message>& receives) override {
    return std::make_unique<Batch>(office_, node(), nodes(), generation(), sends, receives);
  }
  std::string reason(int peer) const override {
    std::lock_guard lock(office_.mutex);
    return office_.gone[size_t(peer)];
  }

  Office& office_;
};

}  // namespace

void run_threads(const World& world, const std::function<void(Communicator&)>& work) {
  if (world.device != Device::cpu) {
    throw InputError(
        "transport: ranks on GPUs are processes; use --transport nccl, or mpi, not threads");
  }
  int ranks = int(std::max<int64_t>(1, world.nodes));
  int threads = std::max(1, omp_get_max_threads() / ranks);
  Office office(ranks);
  std::mutex mutex;
  std::exception_ptr first;
  auto run = [&](int rank) {
    omp_set_num_threads(threads);  // of this rank's own loops
    auto ended = [&](const std::string& why) {
      {
        std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
      office.leave(rank, why);
    };
    try {
      ThreadsCommunicator communicator(office, rank, ranks, world.deadline);
      work(communicator);
      office.leave(rank, "it has ended");
    } catch (const std::exception& error) {
      ended(error.what());
    } catch (...) {
      ended("it has ended");
    }
  };
  std::vector<std::thread> others;
  bool all_started = true;
  for (int rank = 1; rank < ranks && all_started; rank++) {
    try {
      others.emplace_back(run, rank);
    } catch (const std::system_error& error) {
      all_started = false;
      std::string why = "transport: threads: rank " + std::to_string(rank) + " of " +
                        std::to_string(ranks) + " does not start: " + error.what() +
                        "; use fewer --nodes";
      {
        std::lock_guard lock(mutex);
        if (!first) first = std::make_exception_ptr(Error(why));
      }
      office.leave(0, why);
      for (int r = rank; r < ranks; r++) office.leave(r, why);
    }
  }
  int before = omp_get_max_threads();
  if (all_started) run(0);
  omp_set_num_threads(before);
  for (std::thread& t : others) t.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace murmur
