// tests/train/sample_test.cpp - what writing a text takes.
#include "train/sample.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "nn/model.h"
#include "tensor/memory.h"

using namespace murmur;

TEST_CASE("the memory of sample does not grow with the square of the length") {
  GptConfig config{.n_layer = 1, .n_head = 2, .n_embd = 64, .block_size = 300, .vocab_size = 256};
  Model model(config, 1, DType::f32);
  int64_t most = 0;
  sample(model.gpt, {1}, {.tokens = 300}, [&](int32_t) {
    MemoryStats now = memory_stats();
    most = std::max(most, now.bytes_in_use + now.bytes_cached);
  });
  // All lengths together would be some 200 MB.
  CHECK(most <= 2 * std::max(memory_stats().peak_bytes, int64_t(64) << 20));
}
