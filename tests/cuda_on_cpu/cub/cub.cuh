// tests/cuda_on_cpu/cub/cub.cuh - CUB's radix sort of pairs: a stable sort by some bits of the key.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <type_traits>
#include <vector>

#include "../cuda_on_cpu.h"
#include "../queue.h"

namespace cub {

struct DeviceRadixSort {
  // Without storage it only says how much it needs. Keys: signed or unsigned integers.
  template <class Key, class Value, class Count>
  static cudaError_t SortPairs(void* storage, size_t& bytes, const Key* keys, Key* sorted_keys,
                               const Value* values, Value* sorted_values, Count count,
                               int begin_bit = 0, int end_bit = sizeof(Key) * 8,
                               cudaStream_t stream = nullptr) {
    static_assert(std::is_integral_v<Key>);
    const size_t n = size_t(count), needed = 256 + n * (sizeof(Key) + sizeof(Value));
    if (!storage) {
      bytes = needed;
      return cudaSuccess;
    }
    if (bytes < needed || begin_bit < 0 || end_bit > int(sizeof(Key) * 8) || begin_bit > end_bit) {
      return cuda_on_cpu::remember(cudaErrorInvalidValue);
    }
    return cuda_on_cpu::enqueue(stream, [=] {
      if (cuda_on_cpu::is_dry()) {
        cuda_on_cpu::launch_log().push_back({nullptr, "cub::DeviceRadixSort::SortPairs", 1, 1, 0});
        return;
      }
      using Bits = std::make_unsigned_t<Key>;
      const Bits sign = std::is_signed_v<Key> ? Bits(Bits(1) << (sizeof(Key) * 8 - 1)) : Bits(0);
      const int width = end_bit - begin_bit;
      const Bits mask =
          width == int(sizeof(Key) * 8) ? Bits(~Bits(0)) : Bits((Bits(1) << width) - 1);
      auto digits = [&](size_t i) { return Bits((Bits(keys[i]) ^ sign) >> begin_bit) & mask; };
      std::vector<size_t> order(n);
      std::iota(order.begin(), order.end(), size_t(0));
      std::stable_sort(order.begin(), order.end(),
                       [&](size_t a, size_t b) { return digits(a) < digits(b); });
      std::vector<Key> new_keys(n);
      std::vector<Value> new_values(n);
      for (size_t i = 0; i < n; i++) new_keys[i] = keys[order[i]], new_values[i] = values[order[i]];
      std::copy(new_keys.begin(), new_keys.end(), sorted_keys);
      std::copy(new_values.begin(), new_values.end(), sorted_values);
    });
  }
};

}  // namespace cub
