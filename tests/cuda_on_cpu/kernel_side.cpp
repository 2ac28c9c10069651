// tests/cuda_on_cpu/kernel_side.cpp - what the last lane of a warp function does for all.
#include "kernel_side.h"

namespace cuda_on_cpu {

void shuffle(void* const* lanes, uint32_t came) {
  for (uint32_t rest = came; rest; rest &= rest - 1) {
    Shuffle& mine = *static_cast<Shuffle*>(lanes[std::countr_zero(rest)]);
    if (!(came >> mine.source & 1)) {
      fail("lane " + std::to_string(std::countr_zero(rest)) + " shuffles from lane " +
           std::to_string(mine.source) + ", which does not take part");
    }
    mine.result = static_cast<const Shuffle*>(lanes[mine.source])->value;
  }
}

void ballot(void* const* lanes, uint32_t came) {
  uint32_t votes = 0;
  for (uint32_t rest = came; rest; rest &= rest - 1) {
    int lane = std::countr_zero(rest);
    votes |= uint32_t(static_cast<const Shuffle*>(lanes[lane])->value) << lane;
  }
  for (uint32_t rest = came; rest; rest &= rest - 1) {
    static_cast<Shuffle*>(lanes[std::countr_zero(rest)])->result = votes;
  }
}

}  // namespace cuda_on_cpu
