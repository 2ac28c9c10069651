// dist/mpi.cpp - a rank is a process of MPI: started by mpirun or srun, on one host or many.
//
// Point-to-point messages only: they are all that can be given up after a rank has died, where a
// collective never returns. The deadline reports a death: most versions of MPI do not.
//
// How a process ends, so that nobody waits for ever:
//
//   work() returns   MPI_Finalize, which waits for the others as long as any message may
//   work() throws    one line on stderr, then _exit: 2 after an InputError, else 1. MPI_Finalize
//                    would wait for the dead. mpirun ends the other ranks when it sees this; where
//                    it does not, they reach their deadline.
#include "dist/transport.h"

#ifdef MURMUR_WITH_MPI

#include <fmt/format.h>
#include <mpi.h>
#include <omp.h>
#include <sched.h>
#include <unistd.h>  // _exit

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "dist/agreement.h"
#include "dist/bootstrap.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kLargestChunk = size_t(1) << 30;  // MPI counts bytes in an int
// Tags: of messages, and of letters about who is left (find_survivors), each of one generation of
// members, so that nobody receives what was meant for an earlier one.
constexpr int kMessage = 0, kAlarm = 1, kTags = 2;
constexpr double kTimeToAgree = 5;  // seconds

// Ends the process when a call that has no deadline of its own takes longer than that.
class Watch {
 public:
  Watch(double seconds, std::string complaint)
      : thread_([=](std::stop_token stop) {
          std::mutex mutex;
          std::unique_lock lock(mutex);
          std::condition_variable_any never;
          never.wait_for(lock, stop, std::chrono::duration<double>(seconds), [] { return false; });
          if (!stop.stop_requested()) _exit(complain(Error(complaint), 0, 1));
        }) {}

 private:
  std::jthread thread_;
};

// Messages whose Pending has gone before they arrived: MPI still uses their tensors. They are
// received all the same, since a receive that was cancelled would leave its message to the next one
// from that peer.
class Unattended {
 public:
  static void add(std::vector<MPI_Request> requests, std::vector<Tensor> tensors) {
    all().push_back({std::move(requests), std::move(tensors)});
  }
  // Lets go of what has arrived; is nothing left? What a dead rank owes is left for ever.
  static bool release() {
    std::erase_if(all(), [](One& one) {
      int done = 0;
      MPI_Testall(int(one.requests.size()), one.requests.data(), &done, MPI_STATUSES_IGNORE);
      return done != 0;
    });
    return all().empty();
  }

 private:
  struct One {
    std::vector<MPI_Request> requests;
    std::vector<Tensor> tensors;
  };
  static std::vector<One>& all() {
    static auto* const all = new std::vector<One>;  // outlives everything: MPI may still write
    return *all;
  }
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(int rank, int size, double deadline) : Communicator(rank, size, deadline) {}

  bool lost_any() const { return lost_any_; }

 private:
  int tag(int kind) const { return kTags * generation() + kind; }
  bool alarmed() const { return survives() && sender(kAlarm) >= 0; }
  // A member whose message of that kind is there; -1: none. Whoever was given up and comes to again
  // counts the same generations: nobody listens to it.
  int sender(int kind) const {
    int there = 0;
    for (int peer : members()) {
      if (peer == node()) continue;
      MPI_Iprobe(peer, tag(kind), MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE);
      if (there) return peer;
    }
    return -1;
  }

  class Batch final : public Pending {
   public:
    Batch(const MpiCommunicator& c, const std::vector<Message>& sends,
          const std::vector<Message>& receives)
        : c_(c), rank_(c.node()), tag_(c.tag(kMessage)) {
      for (const Message& m : receives) {
        Tensor host = m.tensor;
        if (host.device() != Device::cpu) {  // MPI knows no memory but the host's
          host = Tensor(m.tensor.shape(), m.tensor.dtype());
          staged_.push_back({host, m.tensor});
        }
        open(m.peer, host, true);
      }
      for (const Message& m : sends) open(m.peer, to(Device::cpu, m.tensor), false);
    }

    ~Batch() override {
      if (left_ > 0) Unattended::add(std::move(requests_), std::move(tensors_));
    }

    bool poll() override {
      if (left_ == 0) return true;
      int count = 0;
      int problem = MPI_Testsome(int(requests_.size()), requests_.data(), &count, indices_.data(),
                                 statuses_.data());
      if (problem != MPI_ERR_IN_STATUS) verify(problem, chunks_[0]);
      for (int i = 0; i < count; i++) {
        const Chunk& chunk = chunks_[size_t(indices_[size_t(i)])];
        const MPI_Status& status = statuses_[size_t(i)];
        if (problem != MPI_SUCCESS && !verify(status.MPI_ERROR, chunk)) continue;
        left_--;
        int bytes = chunk.bytes;
        if (chunk.receive) MPI_Get_count(&status, MPI_BYTE, &bytes);
        check(bytes == chunk.bytes, [&] {
          return fmt::format("exchange: rank {} sends {} bytes, rank {} expects {}", chunk.peer,
                             bytes, rank_, chunk.bytes);
        });
      }
      if (left_ == 0) unstage();
      return left_ == 0;
    }

    // Ranks may outnumber cores: whoever waits lets the others run.
    std::vector<int> wait_until(Clock::time_point deadline, const std::set<int>& but) override {
      Clock::time_point began = Clock::now();
      for (std::chrono::microseconds nap(10); !poll();) {
        Clock::time_point now = Clock::now();
        std::vector<int> missing;
        if (!but.empty() && (missing = open_peers(but)).empty()) return unstage(), missing;
        if (now >= deadline || c_.alarmed()) return open_peers(but);
        if (now - began < std::chrono::microseconds(50)) {
          sched_yield();
        } else {
          std::this_thread::sleep_for(nap);
          nap = std::min(nap + nap / 4, std::chrono::microseconds(200));
        }
      }
      return {};
    }

   private:
    struct Chunk {
      int peer, bytes;
      bool receive;
    };

    // Chunks of one size at both ends, under one tag: they arrive in the order they were started.
    void open(int peer, const Tensor& x, bool receive) {
      tensors_.push_back(x);
      for (size_t at = 0; at < x.bytes(); at += kLargestChunk) {
        Chunk chunk{peer, int(std::min(kLargestChunk, x.bytes() - at)), receive};
        char* data = static_cast<char*>(x.raw()) + at;
        MPI_Request request = MPI_REQUEST_NULL;
        verify(receive
                   ? MPI_Irecv(data, chunk.bytes, MPI_BYTE, peer, tag_, MPI_COMM_WORLD, &request)
                   : MPI_Isend(data, chunk.bytes, MPI_BYTE, peer, tag_, MPI_COMM_WORLD, &request),
               chunk);
        chunks_.push_back(chunk);
        requests_.push_back(request);
      }
      left_ = requests_.size();
      indices_.resize(left_);
      statuses_.resize(left_);
    }
    // Throws if it failed. False: its peer has died, as Open MPI 5 may tell. Then it stays under
    // way, as with an MPI that tells nothing.
    bool verify(int problem, const Chunk& chunk) {
      if (problem == MPI_SUCCESS) return true;
#ifdef MPI_ERR_PROC_FAILED
      int kind = MPI_SUCCESS;
      MPI_Error_class(problem, &kind);
      if (kind == MPI_ERR_PROC_FAILED) {
        dead_.insert(chunk.peer);
        return false;
      }
#endif
      char words[MPI_MAX_ERROR_STRING];
      int length = 0;
      MPI_Error_string(problem, words, &length);
      throw Error(fmt::format("rank {}: a message {} rank {} failed: {}", rank_,
                              chunk.receive ? "from" : "to", chunk.peer,
                              std::string(words, size_t(length))));
    }
    void unstage() {
      for (auto& [host, device] : staged_) ops::copy(host, device);
    }
    std::vector<int> open_peers(const std::set<int>& but) const {
      std::set<int> peers;
      for (int peer : dead_) {
        if (!but.count(peer)) peers.insert(peer);
      }
      for (size_t i = 0; i < requests_.size(); i++) {
        int peer = chunks_[i].peer;
        if (requests_[i] != MPI_REQUEST_NULL && !but.count(peer)) peers.insert(peer);
      }
      return {peers.begin(), peers.end()};
    }

    const MpiCommunicator& c_;
    int rank_, tag_;
    std::vector<Tensor> tensors_;  // on the host
    std::vector<std::pair<Tensor, Tensor>> staged_;
    std::vector<Chunk> chunks_;
    std::vector<MPI_Request> requests_;  // of each chunk
    size_t left_ = 0;                    // chunks under way
    std::set<int> dead_;                 // peers of which MPI has told that they died
    std::vector<int> indices_;           // what MPI_Testsome fills
    std::vector<MPI_Status> statuses_;
  };

  std::unique_ptr<Pending> post(const std::vector<Message>& sends,
                                const std::vector<Message>& receives) override {
    Unattended::release();
    return std::make_unique<Batch>(*this, sends, receives);
  }

  // Everybody writes to everybody: whoever waits for a message sees it and comes here as well.
  std::vector<int> find_survivors() override {
    lost_any_ = true;
    Agreement agreement(node(), members());
    for (Clock::time_point began = Clock::now(); !agreement.verdict();) {
      double seconds = std::chrono::duration<double>(Clock::now() - began).count();
      agreement.at(seconds);
      send(agreement.take_letters());
      while (auto letter = receive()) agreement.hear(letter->first, letter->second);
      if (seconds < kTimeToAgree) continue;
      std::vector<int> heard(agreement.heard().begin(), agreement.heard().end());
      if (2 * heard.size() <= members().size()) return heard;  // no majority
      throw Error(
          fmt::format("rank {}: those who are left do not agree on who they are within {} s",
                      node(), kTimeToAgree));
    }
    send(agreement.take_letters());
    const std::vector<int>& left = *agreement.verdict();
    if (std::find(left.begin(), left.end(), node()) != left.end()) return left;
    throw Error(fmt::format("rank {}: the others go on without it, since it did not answer in time",
                            node()));
  }
  void send(const std::vector<Agreement::Letter>& letters) const {
    static std::deque<std::vector<int>> sent;  // MPI may read them later
    for (const auto& [to, words] : letters) {
      sent.push_back(words);
      MPI_Request request = MPI_REQUEST_NULL;  // its peer may be dead: nobody waits for it
      MPI_Isend(sent.back().data(), int(words.size()), MPI_INT, to, tag(kAlarm), MPI_COMM_WORLD,
                &request);
      if (request != MPI_REQUEST_NULL) MPI_Request_free(&request);
    }
  }
  // The next letter of this generation and who wrote it; none, after a little while.
  std::optional<std::pair<int, std::vector<int>>> receive() const {
    int from = sender(kAlarm), count = 0;
    if (from < 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      return {};
    }
    MPI_Status status;
    MPI_Probe(from, tag(kAlarm), MPI_COMM_WORLD, &status);
    MPI_Get_count(&status, MPI_INT, &count);
    std::vector<int> words(size_t(count), 0);
    MPI_Recv(words.data(), count, MPI_INT, from, tag(kAlarm), MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    return std::pair(from, words);
  }

  bool lost_any_ = false;
};

// mpirun may have bound each rank to its cores; where it has not, they share the host's.
void share_cores(int local_size) {
  if (std::getenv("OMP_NUM_THREADS")) return;
  int cores = int(sysconf(_SC_NPROCESSORS_ONLN));
  omp_set_num_threads(std::max(1, std::min(omp_get_max_threads(), cores / local_size)));
}

}  // namespace

void run_mpi(const World& world, const std::function<void(Communicator&)>& work) {
  Launched launched = launched_by();
  if (world.nodes > 1 && !launched.found) {
    throw InputError(fmt::format(
        "nodes: {} wanted, and this is one process; start it with mpirun -n {}, or murmur launch",
        world.nodes, world.nodes));
  }
  share_cores(launched.local_size);
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  // Open MPI 5: a connection that breaks is an error of its messages, not the end of the process.
  setenv("OMPI_MCA_mpi_ft_enable", "1", 0);
  // Ranks of one host need shared memory and no TCP: Open MPI 5 writes of every address of a host
  // that it cannot pair.
  if (launched.local_size == launched.size) setenv("OMPI_MCA_btl", "self,vader", 0);
  std::signal(SIGPIPE, SIG_IGN);  // MPI writes to a rank that has just died: that ends nobody else
  int rank = 0, size = 1;
  {
    Watch watch(world.deadline, fmt::format("rank {}: MPI does not start within {} s (--deadline)",
                                            launched.rank, world.deadline));
    int provided;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  try {
    if (launched.found && launched.size != size) {
      throw InputError(
          fmt::format("transport: {} has started {} ranks, and MPI knows of {}; start them with "
                      "mpirun, or with "
                      "srun --mpi=pmix",
                      launched.source, launched.size, size));
    }
    if (world.nodes > 0 && world.nodes != size) {
      throw InputError(fmt::format(
          "nodes: {} wanted, MPI has {}; start it with mpirun -n {}, or leave --nodes out",
          world.nodes, size, world.nodes));
    }
    MpiCommunicator communicator(rank, size, world.deadline);
    work(communicator);
    if (communicator.lost_any()) return;  // MPI_Finalize would wait for the dead
  } catch (const std::exception& error) {
    if (size == 1) {  // nobody to wait for
      MPI_Finalize();
      throw;
    }
    _exit(complain(error, rank, size));
  }
  Watch watch(world.deadline,
              fmt::format("rank {}: has ended, but others have not within {} s (--deadline)", rank,
                          world.deadline));
  while (!Unattended::release()) std::this_thread::sleep_for(std::chrono::microseconds(100));
  MPI_Finalize();
}

}  // namespace murmur

#else

namespace murmur {

void run_mpi(const World&, const std::function<void(Communicator&)>&) {
  throw InputError(
      "transport: mpi is not built in; install libopenmpi-dev and build again, or use threads");
}

}  // namespace murmur

#endif
