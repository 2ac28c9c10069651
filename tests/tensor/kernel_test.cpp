// tests/tensor/kernel_test.cpp - every kind of operand, element by element, in every layout. Also
// compiled as tests/cuda/kernel_test.cu, for the kernels of a GPU.
#include <doctest/doctest.h>

#include <vector>

#include "tensor/kernel/launch.h"

namespace murmur::MURMUR_DEVICE {
namespace {

struct Everything {
  template <class C>
  KERNEL void operator()(C row, C scalar, C x, C addend, C factor, C& in_out, C& sum,
                         C& copy) const {
    in_out = in_out - x;
    sum = x * factor + addend + row;
    copy = x * scalar;
  }
};
struct Twice {
  KERNEL double operator()(Row r) const { return double(2 * r.index); }
};

struct Case {
  int64_t rows, cols, margin;
  int64_t factor_rows;  // of the operand that is broadcast; 0: a single number
  bool optional, adds;
  int64_t parts;  // of the scalar on the device; 0: there is none
};

// Small whole numbers: exact in every type.
Tensor numbers(Shape shape, DType dtype, int64_t period, int64_t margin = 0) {
  int64_t cols = shape.cols();
  shape[-1] += margin;
  std::vector<double> values(size_t(shape.numel()));
  for (size_t i = 0; i < values.size(); i++) values[i] = double(int64_t(i * 7) % period) - 3;
  return to(Device::MURMUR_DEVICE, Tensor::of(values, shape, dtype)).columns(margin, margin + cols);
}

template <class T>
void check_case(const Case& c) {
  using C = Compute<T>;
  DType type = dtype_of<T>();
  Shape shape{c.rows, c.cols};
  Tensor x = numbers(shape, type, 11, c.margin), in_out_of = numbers(shape, type, 13, c.margin),
         sum = numbers(shape, type, 5), none, addend = c.optional ? numbers(shape, type, 9) : none,
         copy = c.optional ? numbers(shape, type, 8, c.margin) : none,
         factor = numbers(c.factor_rows ? Shape{c.factor_rows, c.cols} : Shape{1}, type, 6),
         by = c.parts ? numbers({c.parts}, DType::f64, 7) : none;
  auto before = to_vector(in_out_of), sum_before = to_vector(sum);
  Extent e = extent_of(x, in_out_of, sum);
  if (c.factor_rows > 0 && c.factor_rows < c.rows) e = row_extent(x);
  DeviceScalar scalar = device_scalar(c.parts ? Factor(0.5, by) : Factor(0.5), e);
  bool flat = e.rows != c.rows && !c.parts;
  for_each_element(e, Everything{}, per_row<C>(Twice{}), per_row<C>(scalar), in<T>(x, e),
                   optional_in<T>(addend, e, 4), broadcast<T>(factor, e), in_out<T>(in_out_of, e),
                   accumulate<T>({sum, c.adds}, e), optional_out<T>(copy, e));
  auto xs = to_vector(x), after = to_vector(in_out_of), sums = to_vector(sum),
       factors = to_vector(factor), addends = addend ? to_vector(addend) : xs,
       copies = copy ? to_vector(copy) : xs, scalars = by ? to_vector(by) : xs;
  int64_t wrong = 0;
  for (size_t i = 0; i < xs.size(); i++) {
    double row = flat || e.rows == 1 ? 0 : 2 * double(int64_t(i) / e.cols);
    double want = xs[i] * factors[i % factors.size()] + (c.optional ? addends[i] : 4) + row +
                  (c.adds ? sum_before[i] : 0);
    wrong += after[i] != before[i] - xs[i];
    wrong += double(T(C(want))) != sums[i];
    double by_part = c.parts ? scalars[i / (xs.size() / scalars.size())] : 1;
    if (c.optional) wrong += copies[i] != xs[i] * 0.5 * by_part;
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("kernels: every kind of operand, in every layout") {
  for (Case c : {Case{1, 1, 0, 1, false, false, 0},
                 {3, 5, 0, 0, true, true, 0},
                 {6, 8, 0, 2, false, true, 0},
                 {6, 8, 8, 6, true, false, 3},
                 {6, 40, 3, 3, true, true, 0},
                 {6, 40, 0, 6, true, true, 2},
                 {2, 70001, 0, 2, true, true, 0},
                 {2, 70000, 0, 1, false, false, 0},
                 {4, 30000, 0, 4, true, true, 2},
                 {300, 64, 16, 100, true, true, 0}}) {
    CAPTURE(c.rows);
    CAPTURE(c.cols);
    CAPTURE(c.margin);
    check_case<float>(c);
    check_case<bf16>(c);
#ifndef MURMUR_GPU_KERNELS
    check_case<double>(c);
#endif
  }
}

}  // namespace murmur::MURMUR_DEVICE
