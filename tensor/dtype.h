// tensor/dtype.h - the four element types, and bf16 as a value.
//
//   f32   parameters, gradients, optimizer state, activations
//   bf16  activations and a shadow of the parameters, where matrix units are fast
//   f64   gradient checks
//   i32   tokens
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/scalar.h"  // MURMUR_HD

namespace murmur {

enum class DType : uint8_t { f32, f64, bf16, i32 };

constexpr size_t size_of(DType dtype) {
  return dtype == DType::f64 ? 8 : dtype == DType::bf16 ? 2 : 4;
}

constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "fp32";
    case DType::f64:
      return "fp64";
    case DType::bf16:
      return "bf16";
    case DType::i32:
      return "int32";
  }
  return "?";
}

// The upper half of a float. Rounds to nearest even and keeps NaN, bit for bit as the hardware
// does.
struct bf16 {
  uint16_t bits = 0;

  bf16() = default;
  bf16(const bf16&) = default;
  // Written out: around the assignment of a struct that compilers make, g++ 12 leaves loops scalar.
  MURMUR_HD bf16& operator=(const bf16& other) {
    bits = other.bits;
    return *this;
  }
  MURMUR_HD explicit bf16(float value) {
    uint32_t u = murmur::bit_cast<uint32_t>(value);
    bool is_nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = is_nan ? uint16_t(0x7fff) : uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  MURMUR_HD operator float() const { return murmur::bit_cast<float>(uint32_t(bits) << 16); }
};

// Arithmetic happens in Compute<T>: float for what is stored in fp32 or bf16, double for fp64.
// Whole numbers, and bf16 as its bits, are only moved.
template <class T>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <>
struct ComputeOf<int32_t> {
  using type = int32_t;
};
template <>
struct ComputeOf<uint16_t> {
  using type = uint16_t;
};
template <class T>
using Compute = typename ComputeOf<T>::type;

// The compute type of a stored type, as a DType: what biases, gains and row statistics are kept in.
constexpr DType compute_type(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::f64;
}
template <>
constexpr DType dtype_of<bf16>() {
  return DType::bf16;
}
template <>
constexpr DType dtype_of<uint16_t>() {
  return DType::bf16;
}
template <>
constexpr DType dtype_of<int32_t>() {
  return DType::i32;
}

}  // namespace murmur
