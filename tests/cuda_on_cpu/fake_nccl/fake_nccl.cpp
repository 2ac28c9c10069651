// tests/cuda_on_cpu/fake_nccl/fake_nccl.cpp - NCCL for ranks that are processes on one machine and
// use the emulation: messages are files in a folder.
//
// As in NCCL, nothing blocks: a communicator and a group are in progress until they have connected,
// and a pair of ranks connects when both first use it; a group's bytes are read when its stream
// comes to it, and the stream goes on when all have arrived. Nobody notices that a peer is gone.
//
//   MURMUR_FAKE_NCCL_FOLDER    where messages lie; an abort leaves the file aborted-RANK there
//   MURMUR_FAKE_NCCL_VERSION   what ncclGetVersion says
//   MURMUR_FAKE_NCCL_ERROR=N   a remote error is reported from the Nth group on
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "nccl.h"
#include "tensor/dtype.h"

namespace fs = std::filesystem;

namespace {

std::string folder() {
  const char* text = std::getenv("MURMUR_FAKE_NCCL_FOLDER");
  return text ? text : fs::temp_directory_path().string();
}
int number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
}

struct Call {
  enum Kind { send, receive, sum } kind;
  const void* from;
  void* to;
  size_t count;
  ncclDataType_t type;
  int peer;
};

size_t size_of(ncclDataType_t type) {
  return type == ncclInt8 ? 1 : type == ncclFloat32 ? 4 : type == ncclFloat64 ? 8 : 2;
}

double value_at(const void* data, size_t i, ncclDataType_t type) {
  if (type == ncclFloat32) return static_cast<const float*>(data)[i];
  if (type == ncclFloat64) return static_cast<const double*>(data)[i];
  return float(static_cast<const murmur::bf16*>(data)[i]);
}

void set_value(void* data, size_t i, ncclDataType_t type, double value) {
  if (type == ncclFloat32) {
    static_cast<float*>(data)[i] = float(value);
  } else if (type == ncclFloat64) {
    static_cast<double*>(data)[i] = value;
  } else {
    static_cast<murmur::bf16*>(data)[i] = murmur::bf16(float(value));
  }
}

struct Group {
  std::vector<Call> calls;
  std::set<int> peers;
  cudaStream_t stream = {};
  std::atomic<bool> finished = false;
};

}  // namespace

struct ncclComm {
  ncclComm(int rank, int ranks, const char* place) : rank(rank), ranks(ranks), place(place) {}

  const int rank, ranks;
  const std::string place;
  std::atomic<bool> ended = false;
  bool met = false;
  int groups = 0;
  std::shared_ptr<Group> launching;
  std::vector<std::shared_ptr<Group>> launched;
  std::set<int> connected;
  std::map<std::pair<int, int>, int> counts;  // of messages, by sender and receiver
  std::mutex mutex;
  std::deque<std::shared_ptr<Group>> work;
  std::thread worker{[this] { serve(); }};

  std::string file(const std::string& name) const { return place + "/" + name; }
  std::string pair(const char* kind, int from, int to) const {
    return file(std::string(kind) + "-" + std::to_string(from) + "-" + std::to_string(to));
  }
  static void leave(const std::string& path, const std::string& bytes) {
    std::ofstream(path + ".part", std::ios::binary) << bytes;
    fs::rename(path + ".part", path);
  }

  std::string next(int from, int to) {
    return pair("message", from, to) + "-" + std::to_string(counts[{from, to}]++);
  }
  bool fetch(int from, std::string& bytes) {
    std::string path = next(from, rank);
    while (!fs::exists(path)) {
      if (ended) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    fs::remove(path);
    bytes = text.str();
    return true;
  }

  bool transfer(const Group& group) {
    for (const Call& c : group.calls) {
      std::string bytes(static_cast<const char*>(c.from), c.from ? c.count * size_of(c.type) : 0);
      for (int peer = 0; peer < ranks; peer++) {
        if (c.kind == Call::send ? peer == c.peer : c.kind == Call::sum && peer != rank)
          leave(next(rank, peer), bytes);
      }
    }
    std::string bytes;
    for (const Call& c : group.calls) {
      if (c.kind == Call::receive) {
        if (!fetch(c.peer, bytes)) return false;
        if (bytes.size() != c.count) {
          std::fprintf(stderr, "fake nccl: rank %d expects %zu bytes, rank %d sends %zu\n", rank,
                       c.count, c.peer, bytes.size());
          std::abort();
        }
        std::memcpy(c.to, bytes.data(), bytes.size());
      } else if (c.kind == Call::sum) {
        std::vector<double> sums(c.count);
        for (int peer = 0; peer < ranks; peer++) {
          if (peer != rank && !fetch(peer, bytes)) return false;
          const void* data = peer == rank ? c.from : bytes.data();
          for (size_t i = 0; i < c.count; i++) sums[i] += value_at(data, i, c.type);
        }
        for (size_t i = 0; i < c.count; i++) set_value(c.to, i, c.type, sums[i]);
      }
    }
    return true;
  }

  void serve() {
    while (!ended) {
      std::shared_ptr<Group> group;
      {
        std::lock_guard lock(mutex);
        if (!work.empty()) {
          group = work.front();
          work.pop_front();
        }
      }
      if (!group) {
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      } else if (transfer(*group)) {
        group->finished = true;
      }
    }
  }

  bool all_met() {
    for (int peer = 0; !met && peer < ranks; peer++) {
      if (!fs::exists(file("here-" + std::to_string(peer)))) return false;
    }
    return met = true;
  }

  bool all_connected(const Group& group) {
    for (int peer : group.peers) {
      if (connected.count(peer)) continue;
      leave(pair("connect", rank, peer), "");
      if (!fs::exists(pair("connect", peer, rank))) return false;
      connected.insert(peer);
    }
    return true;
  }

  // Puts the group on its stream: the worker gets it when the stream comes to it.
  void launch() {
    struct Start {
      ncclComm* comm;
      std::shared_ptr<Group> group;
    };
    auto group = std::move(launching);
    cudaLaunchHostFunc(
        group->stream,
        [](void* data) {
          std::unique_ptr<Start> start(static_cast<Start*>(data));
          std::lock_guard lock(start->comm->mutex);
          start->comm->work.push_back(start->group);
        },
        new Start{this, group});
    cuda_on_cpu::hold(group->stream, [group] { return group->finished.load(); });
    launched.push_back(group);
  }

  void end() {
    ended = true;
    worker.join();
    for (auto& group : launched) group->finished = true;  // the stream goes on
  }
};

namespace {

int depth = 0;
std::shared_ptr<Group> open_group;
ncclComm_t open_comm = nullptr;
std::string last_error;

ncclResult_t wrong(const std::string& why) {
  last_error = "fake nccl: " + why;
  return ncclInvalidUsage;
}

ncclResult_t add(ncclComm_t comm, cudaStream_t stream, const Call& call) {
  if (!comm->met) return wrong("the communicator is still in progress");
  if (comm->launching) return wrong("the group before is still in progress");
  if (depth == 0) return wrong("a call outside of a group");
  if (call.kind != Call::sum && (call.peer < 0 || call.peer >= comm->ranks))
    return wrong("no such peer");
  if (!open_group) open_group = std::make_shared<Group>();
  open_comm = comm;
  open_group->stream = stream;
  open_group->calls.push_back(call);
  for (int peer = 0; peer < comm->ranks; peer++) {
    if (peer != comm->rank && (call.kind == Call::sum || peer == call.peer))
      open_group->peers.insert(peer);
  }
  return ncclSuccess;
}

}  // namespace

ncclResult_t ncclGetVersion(int* version) {
  *version = number("MURMUR_FAKE_NCCL_VERSION", NCCL_VERSION_CODE);
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static int count = 0;
  std::string place =
      folder() + "/world-" + std::to_string(getpid()) + "-" + std::to_string(count++);
  fs::create_directories(place);
  if (place.size() >= sizeof id->internal) return wrong("the folder's name is too long");
  std::memset(id->internal, 0, sizeof id->internal);
  std::memcpy(id->internal, place.data(), place.size());
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (config->magic != 0xcafebeef || config->size != sizeof(ncclConfig_t) || config->blocking != 0)
    return wrong("only for communicators that do not block");
  *comm = new ncclComm(rank, ranks, id.internal);
  ncclComm::leave((*comm)->file("here-" + std::to_string(rank)), "");
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  if (comm->groups >= number("MURMUR_FAKE_NCCL_ERROR", INT_MAX)) {
    last_error = "fake nccl: as it was told";
    *error = ncclRemoteError;
  } else if (!comm->all_met() || (comm->launching && !comm->all_connected(*comm->launching))) {
    *error = ncclInProgress;
  } else {
    if (comm->launching) comm->launch();
    *error = ncclSuccess;
  }
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  return comm->launching ? wrong("finalised while a group is in progress") : ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  comm->end();
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  std::ofstream(folder() + "/aborted-" + std::to_string(comm->rank));
  return ncclCommDestroy(comm);
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError    ? "remote process exited or there was a network error"
         : result == ncclInvalidUsage ? "invalid usage"
                                      : "some error";
}
const char* ncclGetLastError(ncclComm_t) { return last_error.c_str(); }

ncclResult_t ncclGroupStart() {
  depth++;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (--depth > 0 || !open_group) return ncclSuccess;
  open_comm->groups++;
  open_comm->launching = std::move(open_group);
  return ncclInProgress;
}

ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  return add(comm, stream, {Call::send, from, nullptr, count, type, peer});
}
ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add(comm, stream, {Call::receive, nullptr, to, count, type, peer});
}
ncclResult_t ncclAllReduce(const void* from, void* to, size_t count, ncclDataType_t type,
                           ncclRedOp_t, ncclComm_t comm, cudaStream_t stream) {
  return add(comm, stream, {Call::sum, from, to, count, type, -1});
}
