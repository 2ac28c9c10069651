// tensor/checks.h - what every engine asks of the tensors it is given.
#pragma once

#include "tensor/dispatch.h"
#include "tensor/ops.h"  // packed_words

namespace murmur {

// True when `small` is the last dimensions of `large`, or a single number.
inline bool is_suffix(const Shape& small, const Shape& large) {
  if (small.rank() > large.rank()) return small.numel() == 1;
  for (int i = 1; i <= small.rank(); i++) {
    if (small[-i] != large[-i]) return small.numel() == 1;
  }
  return true;
}

inline void check_operands(const Tensor& a, const Tensor& b, const Tensor& y) {
  check_same(a, y);
  check(a.dtype() == b.dtype() && is_suffix(b.shape(), a.shape()), [&] {
    return text(a) + " with " + text(b) +
           ": the right side must have the left side's last dimensions";
  });
}

inline void check_shape(const Tensor& x, const Tensor& y) {
  check(x.shape() == y.shape(), [&] { return text(x) + " into " + text(y); });
}

inline void check_sum_rows(const Tensor& x, const Tensor& y) {
  check(y.numel() == x.cols() && y.dtype() == compute_type(x.dtype()),
        [&] { return text(x) + " into " + text(y); });
}

// x is parts of equal size, one for every element of y.
inline void check_parts(const Tensor& x, const Tensor& y) {
  int64_t parts = y.numel();
  check(parts > 0 && (parts == 1 || x.shape()[0] % parts == 0) && y.contiguous(),
        [&] { return text(x) + " into " + text(y); });
}

inline void check_contiguous(const Tensor& x) {
  check(x.contiguous(), [&] { return "the rows of " + text(x) + " lie apart"; });
}

inline void check_packed(const Tensor& x, const Tensor& packed) {
  check(packed.dtype() == DType::i32 && packed.numel() == packed_words(x.numel()), [&] {
    return text(packed) + " cannot hold " + text(x) + " in " +
           std::to_string(packed_words(x.numel())) + " words";
  });
  for (const Tensor* tensor : {&x, &packed}) check_contiguous(*tensor);
}

inline void check_heads(int64_t heads, const Tensor& qkv) {
  check(heads > 0 && qkv.cols() % (3 * heads) == 0 && qkv.contiguous(),
        [&] { return text(qkv) + " is no packed q, k, v of " + std::to_string(heads) + " heads"; });
}

inline void check_largest_scores(int64_t heads, const Tensor& qkv, const Tensor& y) {
  check_heads(heads, qkv);
  check(y.numel() == heads && y.dtype() == compute_type(qkv.dtype()) && y.contiguous(),
        [&] { return text(qkv) + " of " + std::to_string(heads) + " heads into " + text(y); });
}

inline void check_orthonormal(const Tensor& x, const Tensor& q) {
  check_same(x, q);
  check(x.shape().rank() == 3 && x.shape()[1] >= x.shape()[2] && x.contiguous() && q.contiguous(),
        [&] { return text(x) + " is no bank (K, m, n) of matrices at least as tall as wide"; });
}

inline void check_gather_backward(const Tensor& tokens, const Tensor& dy, const Tensor& table) {
  check(table.cols() == dy.cols() && dy.rows() == tokens.numel() &&
            table.dtype() == compute_type(dy.dtype()),
        [&] { return text(dy) + " into " + text(table); });
}

}  // namespace murmur
