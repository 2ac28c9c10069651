// tensor/tensor.h - a value: shape, element type, and a share of some storage.
//
// A tensor is `rows()` rows of `cols()` elements. Elements of a row are contiguous; rows lie
// `row_stride()` elements apart. Copying a Tensor shares its storage; view(), slice() and columns()
// look at the same storage in another way. Nothing here computes: see tensor/engine.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensor/device.h"
#include "tensor/dtype.h"
#include "tensor/memory.h"
#include "tensor/shape.h"

namespace murmur {

class Tensor {
 public:
  Tensor() = default;  // no tensor: converts to false

  // Uninitialised elements.
  explicit Tensor(Shape shape, DType dtype = DType::f32, Device device = Device::cpu);

  static Tensor zeros(Shape shape, DType dtype = DType::f32, Device device = Device::cpu);
  // From host values, converted to `dtype`; the count must fit the shape.
  static Tensor of(const std::vector<double>& values, Shape shape, DType dtype = DType::f32);

  explicit operator bool() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_->device; }
  int64_t numel() const { return shape_.numel(); }
  int64_t rows() const { return shape_.rows(); }
  int64_t cols() const { return shape_.cols(); }
  int64_t row_stride() const { return row_stride_; }
  bool contiguous() const { return row_stride_ == cols() || rows() == 1; }
  size_t bytes() const { return size_t(numel()) * size_of(dtype_); }

  // The same elements in another shape. Needs contiguous rows one after another.
  Tensor view(Shape shape) const;
  // Elements [begin, end) of the first dimension: (4, 8).slice(1, 3) is (2, 8).
  Tensor slice(int64_t begin, int64_t end) const;
  // Columns [begin, end) of every row: (4, 8).columns(2, 5) is (4, 3), rows still 8 apart.
  Tensor columns(int64_t begin, int64_t end) const;

  // The first element. The type must be the tensor's own.
  template <class T>
  T* data() const {
    check(dtype_of<T>() == dtype_, "tensor: data<T>() with another element type");
    return reinterpret_cast<T*>(raw());
  }
  void* raw() const { return static_cast<char*>(storage_->data) + offset_ * size_of(dtype_); }

  // True when no other tensor shares the storage: only then may a gradient be added in place.
  bool unique() const { return storage_.use_count() == 1; }
  bool shares_storage_with(const Tensor& other) const { return storage_ == other.storage_; }
  // Of this tensor and all that share its storage (tensor/memory.h).
  void give_back_memory() const { storage_->give_back(); }
  void take_memory_again() const { storage_->take_again(); }

 private:
  std::shared_ptr<Storage> storage_;
  Shape shape_;
  int64_t offset_ = 0;      // elements
  int64_t row_stride_ = 0;  // elements
  DType dtype_ = DType::f32;
};

Tensor to(Device device, const Tensor& x);       // x itself where it already lies there
std::vector<double> to_vector(const Tensor& x);  // host copy, row by row
double item(const Tensor& x);                    // the only element
std::string text(const Tensor& x);               // "fp32 (4, 8) cpu"

}  // namespace murmur
