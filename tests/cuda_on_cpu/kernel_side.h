// tests/cuda_on_cpu/kernel_side.h - what CUDA gives to kernels: indices, barriers, warp functions,
// arithmetic by its names there. Left out on purpose: atomics on floats.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "block.h"
#include "types.h"

constexpr int warpSize = 32;

// barriers ----------------------------------------------------------------------------------------

namespace cuda_on_cpu {

inline void only_meet(void* const*, uint32_t) {}

struct Shuffle {
  uint64_t value;
  unsigned source;
  uint64_t result;
};
void shuffle(void* const* lanes, uint32_t came);  // as Work
void ballot(void* const* lanes, uint32_t came);

template <class T>
T exchange(uint32_t mask, T value, unsigned source) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4 && sizeof(T) <= 8);
  Shuffle s = {0, source, 0};
  std::memcpy(&s.value, &value, sizeof value);
  meet(mask, shuffle, &s);
  std::memcpy(&value, &s.result, sizeof value);
  return value;
}

}  // namespace cuda_on_cpu

inline void __syncthreads() { cuda_on_cpu::barrier(); }
inline int __syncthreads_count(int vote) { return int(cuda_on_cpu::barrier(0, 0, vote).yes); }
inline int __syncthreads_or(int vote) { return cuda_on_cpu::barrier(0, 0, vote).yes != 0; }
inline int __syncthreads_and(int vote) {
  cuda_on_cpu::Votes v = cuda_on_cpu::barrier(0, 0, vote);
  return v.yes == v.all;
}
inline void __syncwarp(uint32_t mask = ~0u) {
  cuda_on_cpu::meet(mask, cuda_on_cpu::only_meet, nullptr);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

// warp functions ----------------------------------------------------------------------------------

// `width` cuts the warp into parts that shuffle among themselves.
template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32) {
  unsigned part = cuda_on_cpu::current->lane & ~unsigned(width - 1);
  return cuda_on_cpu::exchange(mask, value, part + (unsigned(source) & unsigned(width - 1)));
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32) {
  unsigned lane = cuda_on_cpu::current->lane, source = lane ^ unsigned(bits);
  unsigned end = (lane & ~unsigned(width - 1)) + unsigned(width);
  return cuda_on_cpu::exchange(mask, value, source < end ? source : lane);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned by, int width = 32) {
  unsigned lane = cuda_on_cpu::current->lane, source = lane + by;
  unsigned end = (lane & ~unsigned(width - 1)) + unsigned(width);
  return cuda_on_cpu::exchange(mask, value, source < end ? source : lane);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned by, int width = 32) {
  unsigned lane = cuda_on_cpu::current->lane, begin = lane & ~unsigned(width - 1);
  return cuda_on_cpu::exchange(mask, value, lane >= begin + by ? lane - by : lane);
}
inline uint32_t __ballot_sync(uint32_t mask, int vote) {
  cuda_on_cpu::Shuffle s = {vote != 0, 0, 0};
  cuda_on_cpu::meet(mask, cuda_on_cpu::ballot, &s);
  return uint32_t(s.result);
}
inline int __any_sync(uint32_t mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(uint32_t mask, int vote) { return __ballot_sync(mask, !vote) == 0; }

// memory ------------------------------------------------------------------------------------------

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
T __ldca(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T value) {
  *p = value;
}
template <class T>
void __stcg(T* p, T value) {
  *p = value;
}
template <class T>
void __stwt(T* p, T value) {
  *p = value;
}

// Atomics on integers: blocks run one after another and a thread is never interrupted.
namespace cuda_on_cpu {
template <class T, class V, class F>
T replace(T* p, V value, F f) {
  static_assert(std::is_integral_v<T>, "sums of floats need a fixed order");
  T old = *p;
  *p = f(old, T(value));
  return old;
}
}  // namespace cuda_on_cpu
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  return cuda_on_cpu::replace(p, v, [](T a, T b) { return T(a + b); });
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  return cuda_on_cpu::replace(p, v, [](T a, T b) { return a > b ? a : b; });
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> v) {
  return cuda_on_cpu::replace(p, v, [](T a, T b) { return a < b ? a : b; });
}
template <class T>
T atomicOr(T* p, std::type_identity_t<T> v) {
  return cuda_on_cpu::replace(p, v, [](T a, T b) { return T(a | b); });
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  return cuda_on_cpu::replace(p, v, [](T, T b) { return b; });
}
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  return cuda_on_cpu::replace(p, v, [=](T a, T b) { return a == expected ? b : a; });
}
inline unsigned atomicInc(unsigned* p, unsigned limit) {
  return cuda_on_cpu::replace(p, limit, [](unsigned a, unsigned b) { return a >= b ? 0 : a + 1; });
}

// arithmetic --------------------------------------------------------------------------------------

#define MURMUR_MIN_MAX(T)                             \
  constexpr T min(T a, T b) { return b < a ? b : a; } \
  constexpr T max(T a, T b) { return a < b ? b : a; }
MURMUR_MIN_MAX(int)
MURMUR_MIN_MAX(unsigned)
MURMUR_MIN_MAX(long)
MURMUR_MIN_MAX(unsigned long)
MURMUR_MIN_MAX(long long)
MURMUR_MIN_MAX(unsigned long long)
#undef MURMUR_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }  // the number, where one is NaN
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __tanhf(float x) { return tanhf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return float(1 / sqrt(double(x))); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1.0f : 0.0f; }  // NaN becomes 0
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
// pi x, without the rounding of pi times a large x.
inline double sinpi(double x) { return sin(M_PI * fmod(x, 2)); }
inline double cospi(double x) { return cos(M_PI * fmod(x, 2)); }
inline float sinpif(float x) { return float(sinpi(x)); }
inline float cospif(float x) { return float(cospi(x)); }
inline void sincospi(double x, double* s, double* c) { *s = sinpi(x), *c = cospi(x); }
inline void sincospif(float x, float* s, float* c) { *s = sinpif(x), *c = cospif(x); }

inline int __float2int_rn(float x) { return int(rintf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __float2int_rd(float x) { return int(floorf(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>(Wide(a) * b >> 64);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
  return unsigned((uint64_t(high) << 32 | low) << (by & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
  return unsigned((uint64_t(high) << 32 | low) >> (by & 31));
}

inline void __nanosleep(unsigned) {}
[[noreturn]] inline void __trap() { cuda_on_cpu::fail("__trap()"); }
