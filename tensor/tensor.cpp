// tensor/tensor.cpp - making tensors and looking at them in another way.
#include "tensor/tensor.h"

#include <algorithm>

#include "tensor/ops.h"

namespace murmur {

Tensor::Tensor(Shape shape, DType dtype, Device device)
    : storage_(std::make_shared<Storage>(size_t(shape.numel()) * size_of(dtype), device)),
      shape_(shape),
      row_stride_(shape.cols()),
      dtype_(dtype) {}

Tensor Tensor::zeros(Shape shape, DType dtype, Device device) {
  Tensor x(shape, dtype, device);
  ops::fill(x, 0);
  return x;
}

Tensor Tensor::of(const std::vector<double>& values, Shape shape, DType dtype) {
  check(int64_t(values.size()) == shape.numel(), [&] {
    return "tensor: " + std::to_string(values.size()) + " values for shape " + text(shape);
  });
  Tensor wide(shape, DType::f64);
  std::copy(values.begin(), values.end(), wide.data<double>());
  if (dtype == DType::f64) return wide;
  Tensor x(shape, dtype);
  ops::copy(wide, x);
  return x;
}

Tensor Tensor::view(Shape shape) const {
  check(contiguous(),
        [&] { return "view: rows of " + text(*this) + " do not touch; copy it first"; });
  check(shape.numel() == numel(), [&] {
    return "view: " + text(shape_) + " as " + text(shape) + ": " + std::to_string(numel()) +
           " elements against " + std::to_string(shape.numel());
  });
  Tensor x = *this;
  x.shape_ = shape;
  x.row_stride_ = shape.cols();
  return x;
}

Tensor Tensor::slice(int64_t begin, int64_t end) const {
  check(shape_.rank() > 0 && 0 <= begin && begin <= end && end <= shape_[0], [&] {
    return "slice: [" + std::to_string(begin) + ", " + std::to_string(end) + ") of " + text(shape_);
  });
  Tensor x = *this;
  x.shape_[0] = end - begin;
  int64_t rows_before = shape_.rank() == 1 ? 0 : begin * (shape_[0] ? rows() / shape_[0] : 0);
  x.offset_ += shape_.rank() == 1 ? begin : rows_before * row_stride_;
  if (shape_.rank() == 1) x.row_stride_ = x.cols();
  return x;
}

Tensor Tensor::columns(int64_t begin, int64_t end) const {
  check(shape_.rank() > 0 && 0 <= begin && begin <= end && end <= cols(), [&] {
    return "columns: [" + std::to_string(begin) + ", " + std::to_string(end) + ") of " +
           text(shape_);
  });
  Tensor x = *this;
  x.shape_[-1] = end - begin;
  x.offset_ += begin;
  return x;
}

Tensor to(Device device, const Tensor& x) {
  if (!x || x.device() == device) return x;
  Tensor y(x.shape(), x.dtype(), device);
  ops::copy(x, y);
  return y;
}

std::vector<double> to_vector(const Tensor& x) {
  Tensor wide(x.shape(), DType::f64);
  ops::copy(x, wide);
  return {wide.data<double>(), wide.data<double>() + wide.numel()};
}

double item(const Tensor& x) {
  check(x.numel() == 1, [&] { return "item: " + text(x) + " has more than one element"; });
  return to_vector(x)[0];
}

std::string text(const Tensor& x) {
  if (!x) return "(no tensor)";
  return std::string(name_of(x.dtype())) + " " + text(x.shape()) + " " + name_of(x.device());
}

}  // namespace murmur
