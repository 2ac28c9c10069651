// tests/cuda_on_cpu/types.h - CUDA's keywords and small vectors.
#pragma once

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static thread_local
#define __align__(n) alignas(n)

// make_float4(x, y, z, w) and its like are written out by these.
#define MURMUR_VECTOR2(T, name, align) \
  struct alignas(align) name##2 {      \
    T x, y;                            \
  };                                   \
  constexpr name##2 make_##name##2(T x, T y) { return {x, y}; }
#define MURMUR_VECTOR3(T, name) \
  struct name##3 {              \
    T x, y, z;                  \
  };                            \
  constexpr name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }
#define MURMUR_VECTOR4(T, name, align) \
  struct alignas(align) name##4 {      \
    T x, y, z, w;                      \
  };                                   \
  constexpr name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

MURMUR_VECTOR2(char, char, 2)
MURMUR_VECTOR2(unsigned char, uchar, 2)
MURMUR_VECTOR2(short, short, 4)
MURMUR_VECTOR2(unsigned short, ushort, 4)
MURMUR_VECTOR2(int, int, 8)
MURMUR_VECTOR2(unsigned, uint, 8)
MURMUR_VECTOR2(float, float, 8)
MURMUR_VECTOR2(long long, longlong, 16)
MURMUR_VECTOR2(unsigned long long, ulonglong, 16)
MURMUR_VECTOR2(double, double, 16)
MURMUR_VECTOR3(int, int)
MURMUR_VECTOR3(unsigned, uint)
MURMUR_VECTOR3(float, float)
MURMUR_VECTOR4(char, char, 4)
MURMUR_VECTOR4(unsigned char, uchar, 4)
MURMUR_VECTOR4(short, short, 8)
MURMUR_VECTOR4(unsigned short, ushort, 8)
MURMUR_VECTOR4(int, int, 16)
MURMUR_VECTOR4(unsigned, uint, 16)
MURMUR_VECTOR4(float, float, 16)

#undef MURMUR_VECTOR2
#undef MURMUR_VECTOR3
#undef MURMUR_VECTOR4

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};
