// train/sample.h - text from a model, one token at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "nn/gpt.h"

namespace murmur {

struct SampleOptions {
  int64_t tokens = 400;
  double temperature = 0.8;  // 0: always the most likely token
  int64_t top_k = 0;         // only the k most likely tokens; 0: all
  uint64_t seed = 1337;
};

// One token from a row of logits (V). Deterministic: draw i of a seed is a pure function of both.
int32_t draw(std::span<const double> logits, const SampleOptions& options, int64_t index);

// Continues `prompt` (at least one token); calls emit for every new token. Only the last block_size
// tokens are seen.
void sample(const Gpt& model, std::vector<int32_t> prompt, const SampleOptions& options,
            const std::function<void(int32_t)>& emit);

}  // namespace murmur
