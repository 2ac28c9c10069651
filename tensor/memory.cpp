// tensor/memory.cpp - the caching allocator: one free list per size and device.
#include "tensor/memory.h"

#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tensor/check.h"
#include "tensor/engine.h"  // allocate, release

namespace murmur {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kSlab = size_t(32) << 20;  // small blocks are cut from slabs of this size
constexpr size_t kOwnBlock = kSlab / 4;     // larger ones come from the system one by one

// Slabs lie on huge pages, so that hundreds of small tensors need few address translations. Under
// the address sanitizer every block is its own, so that an overrun is seen.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kUseSlabs = false;
#else
constexpr bool kUseSlabs = true;
#endif

struct Pool {
  std::mutex mutex;
  std::unordered_map<size_t, std::vector<void*>> free;  // rounded size -> blocks
  char* slab = nullptr;                                 // the rest of the newest one
  size_t slab_left = 0;
  MemoryStats stats;

  void* fresh(size_t bytes, Device device) {
    if (!kUseSlabs || bytes > kOwnBlock) return engine(device).allocate(bytes);
    if (slab_left < bytes) {
      char* next = static_cast<char*>(engine(device).allocate(kSlab));
      if (!next) return nullptr;
      slab = next;
      slab_left = kSlab;
    }
    slab_left -= bytes;
    return std::exchange(slab, slab + bytes);
  }
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
    data = p.fresh(bytes, device);
    check(data != nullptr, [&] {
      return "memory: cannot allocate " + std::to_string(bytes) + " bytes on " + name_of(device) +
             " (" + std::to_string(p.stats.bytes_in_use) + " in use); use a smaller batch or model";
    });
    p.stats.fresh_blocks++;
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
    if (kUseSlabs && bytes <= kOwnBlock) continue;  // part of a slab
    for (void* block : blocks) engine(device).release(block, bytes);
    p.stats.bytes_cached -= int64_t(bytes * blocks.size());
    blocks.clear();
  }
}

}  // namespace murmur
