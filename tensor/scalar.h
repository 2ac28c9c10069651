// tensor/scalar.h - scalar mathematics that means the same on the host and on a device.
//
// exp and tanh for float are written out as polynomials: the compiler then vectorises every loop
// that uses them, and the same source gives the same bits on every machine with fused multiply-add.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define MURMUR_HD __host__ __device__ inline
#else
#define MURMUR_HD __attribute__((always_inline)) inline  // a call left in a loop keeps it scalar
#endif

namespace murmur {

// The builtin and not memcpy: loops around it are vectorised.
template <class To, class From>
MURMUR_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, from);
}

// e^x, within one unit in the last place. x = n ln2 + r with |r| <= ln2/2; e^r by a polynomial of
// degree 6, 2^n by exponent bits. These end at 2^127 and e^x does not: what is more is a factor 2
// of its own. From -87.7 down, where only subnormal numbers would do, the result is 0: the exponent
// bits of 2^-127. NaN stays NaN.
MURMUR_HD float exp_of(float x) {
  // Floats of one sign are in the order of their bits: bounds on these need no comparison, and
  // leave compilers no branch to follow into what uses the result.
  constexpr uint32_t kLow = 0xc2b00000;           // -88
  constexpr int32_t kHigh = 0x42b20000;           // 89
  constexpr float kRound = 12582912.f + 127;      // 1.5 * 2^23 rounds to whole numbers; 2^0 has 127
  constexpr int32_t kLargest = 0x4b400000 + 254;  // 1.5 * 2^23, and 2^127
  uint32_t above = bit_cast<uint32_t>(x) < kLow ? bit_cast<uint32_t>(x) : kLow;
  float bounded = bit_cast<float>(int32_t(above) < kHigh ? int32_t(above) : kHigh);
  float shifted = bounded * 1.44269504f + kRound;
  float n = shifted - kRound;
  float r = bounded - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  int32_t bits = bit_cast<int32_t>(shifted), most = bits < kLargest ? bits : kLargest;
  float y = p * bit_cast<float>(most << 23) * bit_cast<float>(((bits - most) << 23) + (127 << 23));
  return x == x ? y : x;
}
MURMUR_HD double exp_of(double x) { return exp(x); }

// tanh x = 1 - 2/(e^2x + 1); for small |x| the odd series, where that difference would cancel.
MURMUR_HD float tanh_of(float x) {
  float e = exp_of(2.f * x);
  float large = 1.f - 2.f / (e + 1.f);
  float x2 = x * x;
  float small = x * (1.f + x2 * (-0.333333333f +
                                 x2 * (0.133333333f + x2 * (-0.0539682540f + x2 * 0.0218694885f))));
  return x2 < 0.0625f ? small : large;
}
MURMUR_HD double tanh_of(double x) { return tanh(x); }

MURMUR_HD float sqrt_of(float x) { return sqrtf(x); }
MURMUR_HD double sqrt_of(double x) { return sqrt(x); }
MURMUR_HD float log_of(float x) { return logf(x); }
MURMUR_HD double log_of(double x) { return log(x); }
MURMUR_HD float expm1_of(float x) { return expm1f(x); }
MURMUR_HD double expm1_of(double x) { return expm1(x); }

}  // namespace murmur
