// train/checksum.h - CRC-32C (Castagnoli), the checksum of everything Murmur writes to disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace murmur {

// The checksum of `count` bytes; `before` continues an earlier piece:
//   crc32c("ab") == crc32c("b", crc32c("a"))
uint32_t crc32c(const void* bytes, size_t count, uint32_t before = 0);

// Eight lower-case hexadecimal digits. Compare these texts, never parsed numbers: then a damaged
// digit cannot pass as the same digit in another case.
std::string checksum_text(uint32_t checksum);

// What stands in the place of a file's own checksum while that checksum is computed.
inline constexpr char kNoChecksum[] = "00000000";

}  // namespace murmur
