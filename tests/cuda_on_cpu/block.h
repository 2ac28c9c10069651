// tests/cuda_on_cpu/block.h - the block that runs: its threads, and how they wait for each other.
//
// A thread is a function call. It gets a stack of its own (a fiber) only when it has to wait: the
// next thread then runs, and it goes on when what it waits for has happened. The schedule is unfair
// on purpose, one warp runs as far as it can, so that a missing barrier shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "types.h"

extern constinit thread_local uint3 blockIdx;
extern constinit thread_local dim3 blockDim, gridDim;
#define threadIdx (cuda_on_cpu::current->index)

namespace cuda_on_cpu {

class Fiber;

// 16 bytes on their way to shared memory; they arrive at the wait that covers their group.
struct AsyncCopies {
  struct Copy {
    void* to;
    const void* from;  // nullptr: zeros
  };
  std::vector<Copy> copies;
  std::vector<size_t> groups;  // for every closed group, where it ends in copies
  size_t first_copy = 0, first_group = 0;

  void start(void* to, const void* from);
  void commit() { groups.push_back(copies.size()); }
  void wait(size_t may_remain);
  void clear() { copies.clear(), groups.clear(), first_copy = first_group = 0; }
};

struct Thread {
  uint3 index;
  unsigned warp, lane;
  Fiber* fiber;          // once it had to wait
  bool (*ready)(void*);  // while it waits in wait_until
  void* what;
  AsyncCopies copies;
};

extern constinit thread_local Thread* current;  // the CUDA thread that runs; nullptr on the host
extern constinit thread_local unsigned char* dynamic_shared;  // of the block that runs
extern constinit thread_local size_t dynamic_shared_bytes;

// Ends the launch with an Error that says which thread it was.
[[noreturn]] void fail(const std::string& what);

// Lanes of one warp meet. When all of `mask` have come (but for those that ended), the last one
// runs work(arguments by lane, lanes that came), and all go on.
using Work = void (*)(void* const* arguments, uint32_t lanes);
void meet(uint32_t mask, Work work, void* arguments);

// Threads of the block meet at barrier `id`: all that have not ended, or as many as `threads` says.
struct Votes {
  unsigned yes, all;
};
Votes barrier(unsigned id = 0, unsigned threads = 0, bool vote = false);
void barrier_arrive(unsigned id, unsigned threads);  // counts, does not wait

// Waits until ready() is true. It is called by whoever runs, so it must not use `current`.
void wait_until(bool (*ready)(void*), void* what);
template <class F>
void wait_until(F ready) {
  wait_until([](void* f) -> bool { return (*static_cast<F*>(f))(); }, &ready);
}

// Tiles that hardware copies (emulated_hopper.cpp): one of those under way arrives; false when
// there is none. And the end of a block, which finished or failed.
bool deliver_tile(unsigned choice);
void end_block(bool finished);

// Runs a kernel, block after block.
void run_kernel(dim3 blocks, dim3 threads, size_t shared_bytes, const std::function<void()>& body);

constexpr size_t max_shared = 227 * 1024;

}  // namespace cuda_on_cpu
