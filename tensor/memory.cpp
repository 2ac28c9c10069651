// tensor/memory.cpp - the caching allocator: one free list per size and device.
#include "tensor/memory.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tensor/backend.h"
#include "tensor/check.h"

namespace murmur {
namespace {

constexpr size_t kAlignment = 256;          // what a GPU's matrix units like best
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
  std::map<char*, size_t> slabs;  // how much of each was cut
  char* slab = nullptr;           // the newest
  int64_t most_in_use = 0;
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
    if (!kUseSlabs || bytes > kOwnBlock) return backend(device).allocate(bytes);
    if (!slab || kSlab - slabs[slab] < bytes) {
      char* next = static_cast<char*>(backend(device).allocate(kSlab));
      if (!next) return nullptr;
      slabs[slab = next] = 0;
    }
    return slab + std::exchange(slabs[slab], slabs[slab] + bytes);
  }

  // Sizes that keep changing, as the lengths of a text that is written, find nothing that waits and
  // leave ever more behind.
  bool too_much_waits() const {
    return stats.bytes_cached > std::max(most_in_use, int64_t(2 * kSlab));
  }

  // Gives back to the system what waits: blocks of their own, and slabs that wait as a whole.
  void release_waiting(Device device) {
    std::map<char*, size_t> waiting;  // bytes in each slab
    auto slab_of = [&](void* block) {
      return std::prev(slabs.upper_bound(static_cast<char*>(block)))->first;
    };
    auto is_cut = [](size_t bytes) { return kUseSlabs && bytes <= kOwnBlock; };
    for (auto& [bytes, blocks] : free) {
      for (void* block : blocks) {
        if (is_cut(bytes))
          waiting[slab_of(block)] += bytes;
        else
          backend(device).release(block, bytes);
      }
    }
    for (auto& [bytes, blocks] : free) {
      const bool cut = is_cut(bytes);
      auto released = [&](void* block) {
        return !cut || waiting[slab_of(block)] == slabs[slab_of(block)];
      };
      stats.bytes_cached -= int64_t(std::erase_if(blocks, released) * bytes);
    }
    for (auto& [begin, bytes] : waiting) {
      if (bytes != slabs[begin]) continue;
      backend(device).release(begin, kSlab);
      slabs.erase(begin);
      if (begin == slab) slab = nullptr;
    }
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
    if (!p.setting_aside && p.too_much_waits()) p.release_waiting(device);
    data = p.fresh(bytes, device);
    if (!data && !p.setting_aside) {
      p.release_waiting(device);
      data = p.fresh(bytes, device);
    }
    check(data != nullptr, [&] {
      return "memory: cannot allocate " + std::to_string(bytes) + " bytes on " + name_of(device) +
             " (" + std::to_string(p.stats.bytes_in_use) + " in use); use a smaller batch or model";
    });
    p.stats.fresh_blocks++;
  }
  p.stats.bytes_in_use += int64_t(bytes);
  p.stats.peak_bytes = std::max(p.stats.peak_bytes, p.stats.bytes_in_use);
  p.most_in_use = std::max(p.most_in_use, p.stats.bytes_in_use);
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
  p.release_waiting(device);
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
