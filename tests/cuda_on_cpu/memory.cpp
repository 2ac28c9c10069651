// tests/cuda_on_cpu/memory.cpp - device and pinned memory, copies. Every allocation is known, so
// that a copy in the wrong direction or past an end is refused.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda_on_cpu.h"
#include "queue.h"

namespace cuda_on_cpu {
namespace {

enum class Place { pageable, pinned, device, outside };  // outside: past an allocation's end

struct Allocation {
  size_t bytes;
  Place place;
  bool reserved;  // made while dry
};

std::mutex mutex;
std::map<uintptr_t, Allocation> allocations;
Memory counters;

size_t device_bytes() { return size_t(is_dry() ? 80 : 8) << 30; }

Place place_of(const void* p, size_t bytes) {
  std::lock_guard lock(mutex);
  const uintptr_t address = reinterpret_cast<uintptr_t>(p);
  auto after = allocations.upper_bound(address);
  if (after == allocations.begin()) return Place::pageable;
  const auto& [base, allocation] = *std::prev(after);
  if (address >= base + allocation.bytes) return Place::pageable;
  return address + bytes <= base + allocation.bytes ? allocation.place : Place::outside;
}

cudaError_t free_as(Place place, void* p) {
  if (!p) return cudaSuccess;
  if (forbidden(Call::allocates)) return remember(cudaErrorStreamCaptureUnsupported);
  finish(nullptr);
  std::lock_guard lock(mutex);
  auto it = allocations.find(reinterpret_cast<uintptr_t>(p));
  if (it == allocations.end() || it->second.place != place) return remember(cudaErrorInvalidValue);
  if (place == Place::device) counters.live--, counters.live_bytes -= int64_t(it->second.bytes);
  if (it->second.reserved) {
    munmap(p, it->second.bytes);
  } else {
    std::free(p);
  }
  allocations.erase(it);
  return cudaSuccess;
}

struct Copy {
  char* to;
  size_t to_pitch;
  const char* from;
  size_t from_pitch, width, height;
};

void copy_now(const Copy& c, Place to, Place from) {
  if (is_dry() && to == Place::device) return;
  for (size_t row = 0; row < c.height; row++) {
    char* p = c.to + row * c.to_pitch;
    if (is_dry() && from == Place::device) {
      std::memset(p, 0, c.width);
    } else {
      std::memcpy(p, c.from + row * c.from_pitch, c.width);
    }
  }
}

cudaError_t copy(const Copy& c, cudaMemcpyKind kind, cudaStream_t stream) {
  if (c.width == 0 || c.height == 0) return cudaSuccess;
  if (c.to_pitch < c.width || c.from_pitch < c.width) return remember(cudaErrorInvalidValue);
  const Place to = place_of(c.to, (c.height - 1) * c.to_pitch + c.width);
  const Place from = place_of(c.from, (c.height - 1) * c.from_pitch + c.width);
  if (to == Place::outside || from == Place::outside) return remember(cudaErrorInvalidValue);
  if (kind != cudaMemcpyDefault) {
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if ((to == Place::device) != to_device || (from == Place::device) != from_device) {
      return remember(cudaErrorInvalidValue);
    }
  }
  // As on a GPU: the caller may change pageable memory after the call, but not pinned memory.
  if (stream && is_late() && !is_capturing(stream)) {
    if (to == Place::pageable) {
      finish(stream);
      copy_now(c, to, from);
      return cudaSuccess;
    }
    if (from == Place::pageable) {
      auto staged = std::make_shared<std::vector<char>>(c.width * c.height);
      Copy second = c;
      second.from = staged->data(), second.from_pitch = c.width;
      copy_now({staged->data(), c.width, c.from, c.from_pitch, c.width, c.height}, Place::pageable,
               from);
      return enqueue(stream, [second, to, from, staged] { copy_now(second, to, from); });
    }
  }
  return enqueue(stream, [=] { copy_now(c, to, from); });
}

}  // namespace

Memory memory() {
  std::lock_guard lock(mutex);
  return counters;
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

cudaError_t cudaMalloc(void** p, size_t bytes) {
  *p = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (forbidden(Call::allocates)) return remember(cudaErrorStreamCaptureUnsupported);
  std::lock_guard lock(mutex);
  if (bytes > device_bytes() || size_t(counters.live_bytes) > device_bytes() - bytes) {
    return remember(cudaErrorMemoryAllocation);
  }
  if (is_dry()) {
    void* reserved =
        mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *p = reserved == MAP_FAILED ? nullptr : reserved;
  } else if (posix_memalign(p, 256, bytes) != 0) {
    *p = nullptr;
  }
  if (!*p) return remember(cudaErrorMemoryAllocation);
  if (!is_dry()) std::memset(*p, 0xff, bytes);
  allocations[reinterpret_cast<uintptr_t>(*p)] = {bytes, Place::device, is_dry()};
  counters.allocations++, counters.live++, counters.live_bytes += int64_t(bytes);
  counters.peak_bytes = std::max(counters.peak_bytes, counters.live_bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) { return free_as(Place::device, p); }

cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) {
  *p = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (forbidden(Call::allocates)) return remember(cudaErrorStreamCaptureUnsupported);
  if (posix_memalign(p, 256, bytes) != 0) return remember(cudaErrorMemoryAllocation);
  std::memset(*p, 0xff, bytes);
  std::lock_guard lock(mutex);
  allocations[reinterpret_cast<uintptr_t>(*p)] = {bytes, Place::pinned, false};
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) { return free_as(Place::pinned, p); }

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = device_bytes();
  *free = *total - size_t(memory().live_bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return copy({static_cast<char*>(to), bytes, static_cast<const char*>(from), bytes, bytes, 1},
              kind, stream);
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  return copy(
      {static_cast<char*>(to), to_pitch, static_cast<const char*>(from), from_pitch, width, height},
      kind, stream);
}

cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (place_of(p, bytes) != Place::device) return remember(cudaErrorInvalidValue);
  return enqueue(stream, [=] {
    if (!is_dry()) std::memset(p, value, bytes);
  });
}
cudaError_t cudaMemset(void* p, int value, size_t bytes) {
  return cudaMemsetAsync(p, value, bytes, nullptr);
}
