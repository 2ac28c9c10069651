// train/json.h - what is read from JSON that anybody may have written.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

namespace murmur {

// The value as it stands there, or nothing where it is no whole number from `low` to `high`: a
// conversion of 1e300, or of 2^64 - 1, would give any number.
template <class Json>
std::optional<int64_t> whole_number(const Json& value, int64_t low = 0,
                                    int64_t high = std::numeric_limits<int64_t>::max()) {
  if (!value.is_number_integer()) return {};
  bool beyond = value.is_number_unsigned() && value.template get<uint64_t>() > uint64_t(INT64_MAX);
  int64_t number = beyond ? -1 : value.template get<int64_t>();
  if (beyond || number < low || number > high) return {};
  return number;
}

}  // namespace murmur
