// tensor/ops/elementwise.cpp - y = f(x) and y = f(a, b): checks, then the kernels of the function
// that was asked for.
#include "tensor/kernel/launch.h"
#include "tensor/ops.h"

namespace murmur::MURMUR_DEVICE {

void map(Unary f, const Tensor& x, Tensor& y) {
  check_same(x, y);
  f.function->MURMUR_DEVICE.forward(f.constant, x, y);
}

void map_backward(Unary f, const Tensor& x, const Tensor& dy, Into dx) {
  check_same(x, dy);
  check_same(x, dx.tensor);
  f.function->MURMUR_DEVICE.backward(f.constant, x, dy, dx);
}

void zip(Binary f, const Tensor& a, const Tensor& b, Tensor& y) {
  check_operands(a, b, y);
  f.function->MURMUR_DEVICE.forward(a, b, y);
}

void zip_backward(Binary f, bool left, const Tensor& a, const Tensor& b, const Tensor& dy, Into d) {
  check_operands(a, b, dy);
  check_same(dy, d.tensor);
  f.function->MURMUR_DEVICE.backward(left, a, b, dy, d);
}

}  // namespace murmur::MURMUR_DEVICE
