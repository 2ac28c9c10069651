// tensor/memory.cpp - the caching allocator: one free list per size and device.
#include "tensor/memory.h"

#include <mutex>
#include <unordered_map>
#include <vector>

#include "tensor/check.h"
#include "tensor/engine.h"  // allocate, release

namespace murmur {
namespace {

constexpr size_t kAlignment = 64;

struct Pool {
  std::mutex mutex;
  std::unordered_map<size_t, std::vector<void*>> free;  // rounded size -> blocks
  MemoryStats stats;
};

// Never destroyed: tensors in static storage may be released after main().
Pool& pool(Device device) {
  static Pool* pools = new Pool[2];
  return pools[int(device)];
}

size_t rounded(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment + (bytes == 0) * kAlignment;
}

}  // namespace

Storage::Storage(size_t wanted, Device on) : bytes(rounded(wanted)), device(on) {
  Pool& p = pool(device);
  std::lock_guard lock(p.mutex);
  std::vector<void*>& blocks = p.free[bytes];
  if (!blocks.empty()) {
    data = blocks.back();
    blocks.pop_back();
    p.stats.bytes_cached -= int64_t(bytes);
  } else {
    data = engine(device).allocate(bytes);
    check(data != nullptr, [&] {
      return "memory: cannot allocate " + std::to_string(bytes) + " bytes on " + name_of(device) +
             " (" + std::to_string(p.stats.bytes_in_use) + " in use); use a smaller batch or model";
    });
    p.stats.system_allocations++;
  }
  p.stats.bytes_in_use += int64_t(bytes);
  if (p.stats.bytes_in_use > p.stats.peak_bytes) p.stats.peak_bytes = p.stats.bytes_in_use;
}

Storage::~Storage() {
  Pool& p = pool(device);
  std::lock_guard lock(p.mutex);
  p.free[bytes].push_back(data);
  p.stats.bytes_in_use -= int64_t(bytes);
  p.stats.bytes_cached += int64_t(bytes);
}

MemoryStats memory_stats(Device device) {
  Pool& p = pool(device);
  std::lock_guard lock(p.mutex);
  return p.stats;
}

void reset_peak_memory(Device device) {
  Pool& p = pool(device);
  std::lock_guard lock(p.mutex);
  p.stats.peak_bytes = p.stats.bytes_in_use;
}

void release_cached_memory(Device device) {
  Pool& p = pool(device);
  std::lock_guard lock(p.mutex);
  for (auto& [bytes, blocks] : p.free) {
    for (void* block : blocks) engine(device).release(block, bytes);
  }
  p.free.clear();
  p.stats.bytes_cached = 0;
}

}  // namespace murmur
