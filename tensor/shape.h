// tensor/shape.h - up to five sizes; the last one is the length of a row.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "tensor/check.h"

namespace murmur {

class Shape {
 public:
  static constexpr int kMaxRank = 5;

  Shape() = default;  // rank 0: one element
  Shape(std::initializer_list<int64_t> sizes) {
    for (int64_t size : sizes) append(size);
  }

  void append(int64_t size) {
    check(rank_ < kMaxRank, "shape: at most 5 dimensions");
    check(size >= 0, "shape: a size is negative");
    sizes_[rank_++] = size;
  }

  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return sizes_[axis < 0 ? rank_ + axis : axis]; }
  int64_t& operator[](int axis) { return sizes_[axis < 0 ? rank_ + axis : axis]; }

  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; i++) n *= sizes_[i];
    return n;
  }
  int64_t cols() const { return rank_ == 0 ? 1 : sizes_[rank_ - 1]; }
  int64_t rows() const {
    int64_t n = 1;
    for (int i = 0; i + 1 < rank_; i++) n *= sizes_[i];
    return n;
  }

  bool operator==(const Shape& other) const {
    if (rank_ != other.rank_) return false;
    for (int i = 0; i < rank_; i++) {
      if (sizes_[i] != other.sizes_[i]) return false;
    }
    return true;
  }

 private:
  std::array<int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

// "(4, 8)"
inline std::string text(const Shape& shape) {
  std::string s = "(";
  for (int i = 0; i < shape.rank(); i++) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + ")";
}

}  // namespace murmur
