// tensor/ops/quantize.h - a block of numbers as whole ones from -127 to 127, times a scale in bf16.
//
//   scale = the least s with max |x| <= 127 s       x ~ scale round(x / scale)
//
// so that no number is off by more than half a scale, and 0 stays 0. s is no less than the least
// normal number, the last whose inverse is finite. A block that holds NaN, infinity or a number too
// large for any scale has the scale NaN and comes back as NaN: it does not vanish.
#pragma once

#include "tensor/dtype.h"

namespace murmur {

struct Quantize {
  static constexpr float kLeastScale = 0x1p-126f;
  static constexpr float kMost = 127 * 0x1.02p121f;  // 127 times the largest s that fp32 allows

  bf16 scale;
  float inverse;

  // Of a block whose numbers have these magnitudes at most.
  MURMUR_HD explicit Quantize(float largest) {
    float least = largest / 127;
    if (least < kLeastScale) least = kLeastScale;
    scale.bits = uint16_t((bit_cast<uint32_t>(least) + 0xffffu) >> 16);  // rounded up
    if (127 * float(scale) < largest) scale.bits++;                      // the quotient was not
    if (!(largest <= kMost)) scale = bf16(NAN);
    inverse = 1 / float(scale);
  }
  MURMUR_HD int8_t operator()(float x) const {
    // What is added moves the nearest whole number into the low bits.
    return int8_t(bit_cast<uint32_t>(x * inverse + 12582912.f));  // 1.5 * 2^23
  }

  // The order of magnitudes as that of whole numbers, NaN above all: for a maximum.
  MURMUR_HD static uint32_t magnitude(float x) { return bit_cast<uint32_t>(x) & 0x7fffffffu; }
};

}  // namespace murmur
