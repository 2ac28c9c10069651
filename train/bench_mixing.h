// train/bench_mixing.h - how fast neighbours' tensors are mixed, beside what memory allows.
#pragma once

#include <cstdint>
#include <string>

namespace murmur {

struct MixingBench {
  int64_t threads = 0;  // 0: all
  int64_t mib = 0;      // of fp32 to work in; 0: four times the last cache
  int64_t rounds = 7;
};

// On the CPU, in memory that no cache holds: STREAM's triad, a plain sum, and `mix` in place,
// `quantize` and `dequantize`. A triad runs before every other measurement, so that a noisy machine
// disturbs both. Returns JSON: gb_s of each and its ratio to the triad before it, medians.
std::string bench_mixing(const MixingBench& wanted);

}  // namespace murmur
