// train/checksum.cpp - CRC-32C by eight tables, eight bytes a step (Kounavis & Berry, 2005).
//
//   table[0][b]  the remainder of byte b        table[k][b]  the same byte, k zero bytes later
// About 1.5 GB/s on one core, which is more than most disks take; SSE4.2 would tie us to one kind
// of processor for little.
#include "train/checksum.h"

#include <fmt/format.h>

#include <array>
#include <bit>      // endian
#include <cstring>  // memcpy

namespace murmur {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian, and so are we");

constexpr uint32_t kPolynomial = 0x82f63b78;  // x^32 + x^28 + ... + 1, bits reversed

using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables table{};
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t remainder = byte;
    for (int bit = 0; bit < 8; bit++) {
      remainder = (remainder >> 1) ^ (remainder & 1 ? kPolynomial : 0);
    }
    table[0][byte] = remainder;
  }
  for (int k = 1; k < 8; k++) {
    for (int byte = 0; byte < 256; byte++) {
      uint32_t remainder = table[k - 1][byte];
      table[k][byte] = (remainder >> 8) ^ table[0][remainder & 0xff];
    }
  }
  return table;
}

constexpr Tables kTable = make_tables();

}  // namespace

uint32_t crc32c(const void* bytes, size_t count, uint32_t before) {
  auto* p = static_cast<const unsigned char*>(bytes);
  uint32_t crc = ~before;
  for (; count >= 8; count -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    word ^= crc;
    crc = kTable[7][word & 0xff] ^ kTable[6][(word >> 8) & 0xff] ^ kTable[5][(word >> 16) & 0xff] ^
          kTable[4][(word >> 24) & 0xff] ^ kTable[3][(word >> 32) & 0xff] ^
          kTable[2][(word >> 40) & 0xff] ^ kTable[1][(word >> 48) & 0xff] ^ kTable[0][word >> 56];
  }
  for (; count > 0; count--, p++) crc = (crc >> 8) ^ kTable[0][(crc ^ *p) & 0xff];
  return ~crc;
}

std::string checksum_text(uint32_t checksum) { return fmt::format("{:08x}", checksum); }

}  // namespace murmur
