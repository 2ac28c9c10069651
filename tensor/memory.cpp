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

constexpr size_t kAlignment = 256;  // what a GPU's matrix units like best
constexpr size_t kSlab = size_t(32) << 20;  // small blocks are cut from slabs of this size
constexpr size_t kOwnBlock = kSlab / 4;     // larger ones come from the system one by one

// Slabs lie on huge pages, so that hundreds of small tensors need few address translations. Under
// the address sanitizer every block is its own, so that an overrun is seen.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kUseSlabs = false;
#else
constexpr bool kUseSlabs = true;
#endif

using FreeLists = std::unordered_map<size_t, std::vector<void*>>;  // rounded size -> blocks

struct Pool {
  std::mutex mutex;
  FreeLists free;
  FreeLists set_aside;  // by PrivateMemory
  bool setting_aside = false;
  char* slab = nullptr;  // the rest of the newest one
  size_t slab_left = 0;
  MemoryStats stats;

  // A block that waits, or nullptr.
  void* waiting(size_t bytes) {
    for (FreeLists* lists : {&set_aside, &free}) {
      auto found = lists->find(bytes);
      if (found == lists->end() || found->second.empty()) continue;
      void* block = found->second.back();
      found->second.pop_back();
      stats.bytes_cached -= int64_t(bytes);
      return block;
    }
    return nullptr;
  }

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

Storage::Storage(size_t wanted, Device on) : bytes(rounded(wanted)), device(on) { take_again(); }

Storage::~Storage() { give_back(); }

void Storage::take_again() {
  if (data) return;
  Pool& p = pool(device);
  std::lock_guard lock(p.mutex);
  data = p.waiting(bytes);
  if (!data) {
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

void Storage::give_back() {
  if (!data) return;
  Pool& p = pool(device);
  std::lock_guard lock(p.mutex);
  (p.setting_aside ? p.set_aside : p.free)[bytes].push_back(std::exchange(data, nullptr));
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

namespace {

void merge(FreeLists& from, FreeLists& into) {
  for (auto& [bytes, blocks] : from)
    into[bytes].insert(into[bytes].end(), blocks.begin(), blocks.end());
  from.clear();
}

}  // namespace

PrivateMemory::PrivateMemory(Device device) : device_(device) {
  Pool& p = pool(device_);
  std::lock_guard lock(p.mutex);
  check(!p.setting_aside, "memory: a step is captured inside another one");
  p.setting_aside = true;
}

PrivateMemory::~PrivateMemory() {
  Pool& p = pool(device_);
  std::lock_guard lock(p.mutex);
  merge(p.set_aside, p.free);
  p.setting_aside = false;
}

std::shared_ptr<void> PrivateMemory::keep() {
  Pool& p = pool(device_);
  std::lock_guard lock(p.mutex);
  auto* kept = new FreeLists(std::move(p.set_aside));
  p.set_aside.clear();
  return {kept, [device = device_](FreeLists* lists) {
            std::lock_guard lock(pool(device).mutex);
            merge(*lists, pool(device).free);
            delete lists;
          }};
}

}  // namespace murmur
