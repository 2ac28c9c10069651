// tests/train/same_run.h - two run folders, compared to the bit.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <string>

#include "train/checkpoint.h"
#include "train/log.h"

namespace murmur {

inline bool same_bits(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0; }

inline void check_same_tensors(const SafetensorsFile& got, const SafetensorsFile& expected) {
  REQUIRE(got.names() == expected.names());
  CHECK(!got.names().empty());
  for (const std::string& name : got.names()) {
    CAPTURE(name);
    Tensor a = got.read(name), b = expected.read(name);
    REQUIRE(a.bytes() == b.bytes());
    CHECK(std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
  }
}

// Every step once, in order, with the same numbers. A run that was stopped on purpose may have
// validated more often.
inline void check_same_log(const std::string& got, const std::string& expected) {
  std::vector<LogRow> a = read_log(got + "/log.jsonl"), b = read_log(expected + "/log.jsonl");
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); i++) {
    CAPTURE(i);
    CHECK(a[i].step == b[i].step);
    CHECK(a[i].tokens == b[i].tokens);
    CHECK(same_bits(a[i].train_loss, b[i].train_loss));
    CHECK(same_bits(a[i].lr, b[i].lr));
    CHECK(same_bits(a[i].grad_norm, b[i].grad_norm));
    if (!b[i].val_loss) continue;
    REQUIRE(a[i].val_loss);
    CHECK(same_bits(*a[i].val_loss, *b[i].val_loss));
  }
}

inline void check_same_run(const std::string& got, const std::string& expected) {
  CAPTURE(got);
  Checkpoint a = load_checkpoint(got), b = load_checkpoint(expected);
  CHECK(a.step == b.step);
  CHECK(a.state.counters == b.state.counters);
  check_same_tensors(a.model, b.model);
  check_same_tensors(a.optimizer, b.optimizer);
  check_same_log(got, expected);
}

}  // namespace murmur
