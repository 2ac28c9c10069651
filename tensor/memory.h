// tensor/memory.h - storage with a cache: memory that is given back waits for the next request of
// exactly its size. A training step asks for the same sizes every time, so after the first step the
// system is never asked again. No more waits than tensors ever held at once, or 64 MiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "tensor/device.h"

namespace murmur {

// A block of bytes, 64-byte aligned (256 on a GPU). Shared by all views of a tensor; returns to the
// cache when the last view is gone.
struct Storage {
  void* data = nullptr;
  size_t bytes = 0;
  Device device = Device::cpu;

  Storage(size_t bytes, Device device);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  // Who shares the storage goes on sharing it, but there is nothing in it for a while: `data` is
  // nullptr from give_back() to take_again(), and its contents are lost.
  void give_back();
  void take_again();
};

struct MemoryStats {
  int64_t fresh_blocks = 0;  // requests the cache could not serve, since the start
  int64_t bytes_in_use = 0;  // held by live tensors
  int64_t peak_bytes = 0;    // largest bytes_in_use since the last reset_peak_memory()
  int64_t bytes_cached = 0;  // waiting in the cache
};

MemoryStats memory_stats(Device device = Device::cpu);
void reset_peak_memory(Device device = Device::cpu);
// Gives what waits back to the system, but for small blocks beside some that are in use.
void release_cached_memory(Device device = Device::cpu);

// While it lives, blocks that become free on the device are set aside for requests made meanwhile.
// keep() withdraws them from everybody else for as long as the result lives: a captured step
// (tensor/engine.h) works in the same blocks at every replay.
class PrivateMemory {
 public:
  explicit PrivateMemory(Device device);
  ~PrivateMemory();
  PrivateMemory(const PrivateMemory&) = delete;
  std::shared_ptr<void> keep();

 private:
  Device device_;
};

}  // namespace murmur
