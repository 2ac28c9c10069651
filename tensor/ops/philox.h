// tensor/ops/philox.h - counter-based random numbers, Philox4x32-10 (Salmon et al., 2011).
//
// Four 32-bit numbers are a pure function of a 128-bit counter and a 64-bit key: no state, so the
// same numbers come out on any device, in any order, on any number of threads.
#pragma once

#include <cstdint>

#include "tensor/scalar.h"

namespace murmur {

struct Philox {
  uint32_t x[4];

  MURMUR_HD Philox(uint64_t seed, uint64_t stream, uint64_t block) {
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    x[0] = uint32_t(block);
    x[1] = uint32_t(block >> 32);
    x[2] = uint32_t(stream);
    x[3] = uint32_t(stream >> 32);
    for (int round = 0; round < 10; round++) {
      uint64_t p0 = uint64_t(0xD2511F53u) * x[0], p1 = uint64_t(0xCD9E8D57u) * x[2];
      uint32_t y0 = uint32_t(p1 >> 32) ^ x[1] ^ k0, y2 = uint32_t(p0 >> 32) ^ x[3] ^ k1;
      x[1] = uint32_t(p1);
      x[3] = uint32_t(p0);
      x[0] = y0;
      x[2] = y2;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
  }

  // In [0, 1), with 24 random bits: exact in fp32.
  MURMUR_HD float uniform(int i) const { return float(x[i] >> 8) * (1.f / 16777216.f); }
};

}  // namespace murmur
