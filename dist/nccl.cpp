// dist/nccl.cpp - one process and one GPU a rank; NCCL carries tensors from GPU to GPU.
//
// The library is loaded when it is asked for, so that a program with this file in it starts on any
// machine. Everything happens on a stream of its own, after what the engine's stream held when the
// exchange began; tensors on the CPU travel by way of copies on the GPU. NCCL waits for ever, so
// nothing here waits for NCCL: it is asked again and again, and given up at the deadline.
#include "dist/transport.h"

#ifndef MURMUR_WITH_NCCL

namespace murmur {

void run_nccl(const World&, const std::function<void(Communicator&)>&) {
  throw InputError(
      "transport: nccl is not part of this build; use `cmake --preset cuda` where nccl.h is found");
}

}  // namespace murmur

#else

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <nccl.h>

#include <cstdlib>
#include <cstring>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "dist/bootstrap.h"
#include "dist/store.h"
#include "tensor/backend.h"
#include "tensor/memory.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

using Clock = std::chrono::steady_clock;

// the library -------------------------------------------------------------------------------------

// clang-format off
#define NCCL_FUNCTIONS(X)                                                                       \
  X(GetVersion) X(GetUniqueId) X(CommInitRankConfig) X(CommGetAsyncError) X(CommFinalize)       \
  X(CommDestroy) X(CommAbort) X(GetErrorString) X(GetLastError) X(GroupStart) X(GroupEnd)       \
  X(Send) X(Recv) X(AllReduce)
// clang-format on

struct Library {
#define MEMBER(name) decltype(&nccl##name) name = nullptr;
  NCCL_FUNCTIONS(MEMBER)
#undef MEMBER
};

std::string version_text(int code) {
  return fmt::format("{}.{}.{}", code / 10000, code / 100 % 100, code % 100);
}

Library load_library() {
  const char* given = std::getenv("MURMUR_NCCL_LIBRARY");
  std::string path = given && *given ? given : "libnccl.so.2";
  auto fail = [&](const std::string& why) {
    throw InputError(
        fmt::format("nccl: {}: {}; install NCCL {} or newer, or set "
                    "MURMUR_NCCL_LIBRARY to the path of its libnccl.so.2",
                    path, why, version_text(NCCL_VERSION_CODE)));
  };
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) fail(fmt::format("cannot be loaded ({})", dlerror()));
  Library library;
  auto find = [&](const char* name, auto& function) {
    using F = std::remove_reference_t<decltype(function)>;
    function = reinterpret_cast<F>(dlsym(handle, name));
    if (!function) fail(fmt::format("has no function {}", name));
  };
#define FIND(name) find("nccl" #name, library.name);
  NCCL_FUNCTIONS(FIND)
#undef FIND
  int version = 0;
  library.GetVersion(&version);
  if (version < NCCL_VERSION_CODE) {
    fail(fmt::format("is version {}, and this program was built for {}", version_text(version),
                     version_text(NCCL_VERSION_CODE)));
  }
  return library;
}

// Never unloaded: it has threads of its own.
const Library& nccl() {
  static const Library library = load_library();
  return library;
}

std::string words_of(ncclResult_t result) {
  std::string words = nccl().GetErrorString(result);
  const char* last = nccl().GetLastError(nullptr);
  return last && *last ? fmt::format("{} ({})", words, last) : words;
}

// Where a communicator does not block, "in progress" is as good as success.
bool good(ncclResult_t result) { return result == ncclSuccess || result == ncclInProgress; }

void check_nccl(ncclResult_t result, const char* call) {
  check(good(result), [&] { return fmt::format("nccl: {}: {}", call, words_of(result)); });
}

void check_cuda(cudaError_t status, const char* call) {
  check(status == cudaSuccess,
        [&] { return fmt::format("nccl: {}: {}", call, cudaGetErrorString(status)); });
}

// Asks `done` until it says yes (true) or the deadline has come (false): often, then less often.
template <class Done>
bool ask_until(Clock::time_point deadline, const Done& done) {
  for (int times = 0; !done(); times++) {
    if (Clock::now() >= deadline) return done();
    if (times < 1000) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
  return true;
}

// messages ----------------------------------------------------------------------------------------

class Event {
 public:
  Event() {
    check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate");
  }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = {};
};

void follow(cudaStream_t stream, cudaStream_t earlier, const Event& event) {
  check_cuda(cudaEventRecord(event, earlier), "cudaEventRecord");
  check_cuda(cudaStreamWaitEvent(stream, event, 0), "cudaStreamWaitEvent");
}

// What was given to NCCL as one group.
struct Group {
  enum class Stage : uint8_t {
    launching,  // NCCL has it, and may be connecting; it is not on the stream yet
    running,    // it is on the stream, and `done` behind it
    done,
    failed,
  };
  Stage stage = Stage::launching;
  std::vector<Tensor> held;                          // nobody may have their memory meanwhile
  std::vector<std::pair<Tensor, Tensor> > arrivals;  // on the GPU; where they belong on the CPU
  std::set<int> peers;
  Event before, done;
};

std::optional<ncclDataType_t> summed_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::f64:
      return ncclFloat64;
    case DType::bf16:
      return ncclBfloat16;
    default:
      return {};
  }
}

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(int rank, int size, double deadline, const ncclUniqueId& id)
      : Communicator(rank, size, deadline), deadline_(deadline) {
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    try {
      check_nccl(nccl().CommInitRankConfig(&comm_, size, id, rank, &config), "ncclCommInitRank");
      ncclResult_t now = ncclInProgress;
      if (!ask_until(from_now(), [&] { return (now = state()) != ncclInProgress; })) {
        throw Error(
            fmt::format("nccl: rank {} of {}: not all ranks have connected within {} s; do "
                        "they reach each other? (NCCL_SOCKET_IFNAME, NCCL_DEBUG=INFO)",
                        rank, size, deadline));
      }
      check_nccl(now, "ncclCommInitRank");
    } catch (...) {
      abort();
      cudaStreamDestroy(stream_);
      throw;
    }
  }

  ~NcclCommunicator() override {
    abort();
    cudaStreamDestroy(stream_);
  }

  // At a good end, when nothing is under way any more. What was to be done is done: a rank that
  // does not take leave is no error.
  void finish() {
    if (!comm_ || !good(nccl().CommFinalize(comm_))) return;
    ncclResult_t now = ncclInProgress;
    ask_until(from_now(), [&] { return (now = state()) != ncclInProgress; });
    if (now == ncclSuccess) nccl().CommDestroy(std::exchange(comm_, nullptr));
  }

  bool native_all_reduce(const std::string& what, Tensor& x) override {
    std::optional<ncclDataType_t> type = summed_type(x.dtype());
    if (x.device() != Device::cuda || !type || !x.contiguous() || size() < nodes()) return false;
    if (x.numel() == 0) return true;
    count(what, {int64_t(x.bytes()) * 2 * (size() - 1) / size(), 2 * (size() - 1), 2});
    auto group = std::make_shared<Group>();
    group->held = {x};
    for (int peer = 0; peer < size(); peer++) {
      if (peer != rank()) group->peers.insert(peer);
    }
    launch(group, [&](const auto& add) {
      add(nccl().AllReduce(x.raw(), x.raw(), size_t(x.numel()), *type, ncclSum, comm_, stream_),
          "ncclAllReduce");
    });
    Batch batch(*this, group);
    wait(batch, what);
    return true;
  }

 private:
  class Batch final : public Pending {
   public:
    Batch(NcclCommunicator& communicator, std::shared_ptr<Group> group)
        : communicator_(communicator), group_(std::move(group)) {}
    // Left while its tensors are still read and written: only an abort gives them back. What has
    // come meanwhile is no such thing: a message that travels beside a step outlives the last one.
    ~Batch() override {
      try {
        poll();
      } catch (const std::exception&) {  // there is nobody to tell
      }
      if (under_way()) communicator_.give_up(*group_, "an exchange was left before its end");
    }

    bool poll() override {
      communicator_.advance(*group_);
      return group_->stage == Group::Stage::done;
    }

    std::vector<int> wait_until(Clock::time_point deadline, const std::set<int>&) override {
      if (!ask_until(deadline, [&] { return poll() || !under_way(); }))
        communicator_.give_up(*group_, communicator_.silence(*group_));
      if (group_->stage == Group::Stage::done) return {};
      return {group_->peers.begin(), group_->peers.end()};
    }

   private:
    bool under_way() const { return group_->stage < Group::Stage::done; }

    NcclCommunicator& communicator_;
    std::shared_ptr<Group> group_;
  };

  std::unique_ptr<Pending> post(const std::vector<Message>& sends,
                                const std::vector<Message>& receives) override {
    auto group = std::make_shared<Group>();
    std::vector<Message> out, in;  // on the GPU
    for (const Message& m : sends) {
      if (m.tensor.numel() == 0) continue;
      out.push_back({m.peer, to(Device::cuda, m.tensor)});
    }
    for (const Message& m : receives) {
      if (m.tensor.numel() == 0) continue;
      bool here = m.tensor.device() == Device::cuda;
      in.push_back(
          {m.peer, here ? m.tensor : Tensor(m.tensor.shape(), m.tensor.dtype(), Device::cuda)});
      if (!here) group->arrivals.push_back({in.back().tensor, m.tensor});
    }
    for (const std::vector<Message>* messages : {&out, &in}) {
      for (const Message& m : *messages) {
        group->held.push_back(m.tensor);
        group->peers.insert(m.peer);
      }
    }
    if (group->peers.empty()) {
      group->stage = Group::Stage::done;
    } else {
      launch(group, [&](const auto& add) {
        for (const Message& m : out) {
          add(nccl().Send(m.tensor.raw(), m.tensor.bytes(), ncclInt8, m.peer, comm_, stream_),
              "ncclSend");
        }
        for (const Message& m : in) {
          add(nccl().Recv(m.tensor.raw(), m.tensor.bytes(), ncclInt8, m.peer, comm_, stream_),
              "ncclRecv");
        }
      });
    }
    return std::make_unique<Batch>(*this, group);
  }

  std::string reason(int /*peer*/) const override { return why_; }

  // Gives NCCL what `calls` adds, as one group, to be done after what the engine was asked so far.
  template <class Calls>
  void launch(const std::shared_ptr<Group>& group, const Calls& calls) {
    settle();
    follow(stream_, static_cast<cudaStream_t>(cuda_stream()), group->before);
    ncclResult_t first = nccl().GroupStart();
    const char* name = "ncclGroupStart";
    auto add = [&](ncclResult_t result, const char* call) {
      if (!good(first)) return;
      first = result;
      name = call;
    };
    calls(add);
    add(nccl().GroupEnd(), "ncclGroupEnd");
    if (!good(first)) give_up(*group, fmt::format("{}: {}", name, words_of(first)));
    check(comm_, [&] { return fmt::format("rank {}: nccl: {}", rank(), why_); });
    last_ = group;
  }

  // NCCL takes a group only when the one before is on the stream.
  void settle() {
    if (last_) {
      auto settled = [&] {
        if (last_->stage == Group::Stage::launching) advance(*last_);
        return last_->stage != Group::Stage::launching;
      };
      if (!ask_until(from_now(), settled)) give_up(*last_, silence(*last_));
      last_.reset();
    }
    check(comm_, [&] {
      return fmt::format("rank {}: nccl: nothing can be sent any more: {}", rank(), why_);
    });
  }

  // Moves a group along as far as it goes without waiting.
  void advance(Group& group) {
    if (group.stage >= Group::Stage::done) return;
    if (!comm_) return give_up(group, {});
    ncclResult_t now = state();
    if (!good(now)) return give_up(group, fmt::format("NCCL says: {}", words_of(now)));
    if (group.stage == Group::Stage::launching) {
      if (now == ncclInProgress) return;
      check_cuda(cudaEventRecord(group.done, stream_), "cudaEventRecord");
      group.stage = Group::Stage::running;
    }
    cudaError_t reached = cudaEventQuery(group.done);
    if (reached == cudaErrorNotReady) {
      cudaGetLastError();  // the next call shall not report it again
      return;
    }
    check_cuda(reached, "cudaEventQuery");
    check_cuda(cudaStreamWaitEvent(static_cast<cudaStream_t>(cuda_stream()), group.done, 0),
               "cudaStreamWaitEvent");
    group.stage = Group::Stage::done;
    for (auto& [from, to] : group.arrivals) ops::copy(from, to);
    group.held.clear();
    group.arrivals.clear();
  }

  void give_up(Group& group, const std::string& why) {
    group.stage = Group::Stage::failed;
    if (!comm_) return;  // with another one, and for its reason
    why_ = why;
    abort();
  }

  std::string silence(const Group& group) const {
    return fmt::format("nothing for {} s{}; still running? (--deadline)", deadline_,
                       group.peers.size() > 1 ? ", and NCCL does not say from whom" : "");
  }

  ncclResult_t state() {
    ncclResult_t now = ncclSuccess, asked = nccl().CommGetAsyncError(comm_, &now);
    return good(asked) ? now : asked;
  }

  void abort() {
    if (comm_) nccl().CommAbort(std::exchange(comm_, nullptr));
  }

  Clock::time_point from_now() const {
    return Clock::now() +
           std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(deadline_));
  }

  double deadline_;
  cudaStream_t stream_ = {};
  ncclComm_t comm_ = nullptr;    // nullptr: given up
  std::string why_;              // it was
  std::shared_ptr<Group> last_;  // given to NCCL, and perhaps not on the stream yet
};

// the world ---------------------------------------------------------------------------------------

// Ranks of one host take its GPUs in turn. Must come before the engine allocates anything.
void choose_device(int local_rank) {
  int count = 0, current = 0;
  check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  check_cuda(cudaGetDevice(&current), "cudaGetDevice");
  int chosen = local_rank % count;
  check(chosen == current || memory_stats(Device::cuda).fresh_blocks == 0, [&] {
    return fmt::format("nccl: GPU {} was used before GPU {} was chosen", current, chosen);
  });
  check_cuda(cudaSetDevice(chosen), "cudaSetDevice");
}

ncclUniqueId shared_id(const Launched& launched, double deadline) {
  ncclUniqueId id = {};
  if (launched.rank == 0) check_nccl(nccl().GetUniqueId(&id), "ncclGetUniqueId");
  if (launched.size == 1) return id;
  if (launched.address.empty() || launched.port == 0) {
    throw InputError(
        fmt::format("nccl: {} does not say where rank 0 is; set MASTER_ADDR and "
                    "MASTER_PORT",
                    launched.source));
  }
  // torchrun's own store listens at MASTER_PORT.
  const char* agent = std::getenv("TORCHELASTIC_USE_AGENT_STORE");
  int port = launched.port + (agent && std::strcmp(agent, "True") == 0);
  std::string bytes =
      exchange_from_zero({launched.rank, launched.size, launched.address, port, deadline},
                         std::string(id.internal, sizeof id.internal));
  check(bytes.size() == sizeof id.internal, "nccl: rank 0 sent something that is no ncclUniqueId");
  std::memcpy(id.internal, bytes.data(), sizeof id.internal);
  return id;
}

}  // namespace

void run_nccl(const World& world, const std::function<void(Communicator&)>& work) {
  if (!cuda_backend()) {
    throw InputError(
        "transport: nccl needs an NVIDIA GPU and its driver, and finds none here; "
        "--transport threads and mpi run on the CPU");
  }
  Launched launched = launched_by();
  if (!launched.found) launched.rank = launched.local_rank = 0, launched.size = 1;
  if (world.nodes != 0 && world.nodes != launched.size) {
    throw InputError(
        launched.found
            ? fmt::format("nodes: {} are asked for, and {} has started {} ranks", world.nodes,
                          launched.source, launched.size)
            : fmt::format("nodes: {} are asked for, and this is 1 process that nobody started as a "
                          "rank; use murmur launch, torchrun or srun",
                          world.nodes));
  }
  nccl();
  choose_device(launched.local_rank);
  NcclCommunicator communicator(launched.rank, launched.size, world.deadline,
                                shared_id(launched, world.deadline));
  work(communicator);
  communicator.finish();
}

}  // namespace murmur

#endif  // MURMUR_WITH_NCCL
