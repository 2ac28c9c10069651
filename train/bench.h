// train/bench.h - how fast whole training steps and single operations are, on this machine.
#pragma once

#include <string>

#include "train/config.h"

namespace murmur {

// Whole steps (forward, backward, clip, update) on random tokens; the median after three to warm
// up. Returns JSON: tokens_per_s, step_ms, flops_per_token, gflops, peak_bytes, peak_rss_bytes,
// ops.
std::string bench_step(const Config& config, int64_t steps);

// Every op of the list, forward and backward, at one typical size. Returns JSON rows.
std::string bench_ops(const Config& config);

}  // namespace murmur
