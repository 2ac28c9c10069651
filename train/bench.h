// train/bench.h - how fast whole training steps and single operations are, on this machine.
#pragma once

#include <string>

#include "train/config.h"

namespace murmur {

// Whole steps (forward, backward, clip, update) on random tokens; the median after three to warm
// up. Returns JSON: tokens_per_s, step_ms, flops_per_token, gflops, peak_bytes, peak_rss_bytes,
// ops.
std::string bench_step(const Config& config, int64_t steps);

// Every UNARY and BINARY row of ops.def, softmax and the norms, forward and backward, at one size
// beyond the caches. Returns JSON rows. Products and attention are timed inside bench_step.
std::string bench_ops(const Config& config);

// One update of the matrices of the configured model (a preset's, say) by every contender, written
// as for compare (train/contender.h); "": by every optimizer of the list. Returns JSON: per
// contender update_ms (median), state_bytes, scratch_bytes (its largest, momentarily) and both
// together as bytes_per_parameter, beyond the parameter itself.
std::string bench_optimizers(const std::vector<Assignment>& settings,
                             const std::string& contenders);

}  // namespace murmur
