// tensor/checks.h - what every engine asks of the tensors it is given.
#pragma once

#include "tensor/dispatch.h"
#include "tensor/engine.h"  // packed_words

namespace murmur {

// True when `small` is the last dimensions of `large`, or a single number.
inline bool is_suffix(const Shape& small, const Shape& large) {
  if (small.rank() > large.rank()) return small.numel() == 1;
  for (int i = 1; i <= small.rank(); i++) {
    if (small[-i] != large[-i]) return small.numel() == 1;
  }
  return true;
}

inline void check_operands(const char* op, const Tensor& a, const Tensor& b, const Tensor& y) {
  check_same(op, a, y);
  check(a.dtype() == b.dtype() && is_suffix(b.shape(), a.shape()), [&] {
    return std::string(op) + ": " + text(a) + " with " + text(b) +
           ": the right side must have the left side's last dimensions";
  });
}

inline void check_shape(const char* op, const Tensor& x, const Tensor& y) {
  check(x.shape() == y.shape(),
        [&] { return std::string(op) + ": " + text(x) + " into " + text(y); });
}

inline void check_sum_rows(const Tensor& x, const Tensor& y) {
  check(y.numel() == x.cols() && y.dtype() == compute_type(x.dtype()),
        [&] { return "sum_rows: " + text(x) + " into " + text(y); });
}

// x is parts of equal size, one for every element of y.
inline void check_parts(const char* op, const Tensor& x, const Tensor& y) {
  int64_t parts = y.numel();
  check(parts > 0 && (parts == 1 || x.shape()[0] % parts == 0) && y.contiguous(),
        [&] { return std::string(op) + ": " + text(x) + " into " + text(y); });
}

inline void check_norm(const Tensor& x, const Tensor& residual, const Tensor& gain,
                       const Tensor& sum, const Tensor& y) {
  check_same("norm", x, y);
  if (residual) check_same("norm", x, residual), check_same("norm", x, sum);
  check(!gain || gain.numel() == x.cols(),
        [&] { return "norm: rows of " + text(x) + ", gain " + text(gain); });
}

inline void check_cross_entropy(const Tensor& logits, const Tensor& targets, const Tensor& losses,
                                int64_t vocabulary) {
  check(targets.numel() == logits.rows() && losses.numel() == logits.rows() && vocabulary > 0 &&
            vocabulary <= logits.cols(),
        [&] {
          return "cross_entropy: logits " + text(logits) + ", targets " + text(targets) +
                 ", losses " + text(losses) + ", a vocabulary of " + std::to_string(vocabulary);
        });
}

inline void check_contiguous(const char* op, const Tensor& x) {
  check(x.contiguous(),
        [&] { return std::string(op) + ": the rows of " + text(x) + " lie apart"; });
}

inline void check_mix(const Tensor& x, const Tensor& own, const std::vector<Tensor>& theirs,
                      const std::vector<double>& weights, const Tensor& y) {
  check_same("mix", x, y);
  check_shape("mix", own, x);
  check(x.dtype() == compute_type(x.dtype()),
        [&] { return "mix: into " + text(y) + ", but sums want fp32 or fp64"; });
  check(theirs.size() == weights.size(), [&] {
    return "mix: " + std::to_string(theirs.size()) + " neighbours, " +
           std::to_string(weights.size()) + " weights";
  });
  for (const Tensor* tensor : {&x, &own, &y}) check_contiguous("mix", *tensor);
  for (const Tensor& their : theirs) {
    check_same("mix", own, their);
    check_contiguous("mix", their);
  }
}

inline void check_packed(const char* op, const Tensor& x, const Tensor& packed) {
  check(packed.dtype() == DType::i32 && packed.numel() == packed_words(x.numel()), [&] {
    return std::string(op) + ": " + text(packed) + " cannot hold " + text(x) + " in " +
           std::to_string(packed_words(x.numel())) + " words";
  });
  for (const Tensor* tensor : {&x, &packed}) check_contiguous(op, *tensor);
}

inline void check_heads(const char* op, int64_t heads, const Tensor& qkv) {
  check(heads > 0 && qkv.cols() % (3 * heads) == 0 && qkv.contiguous(), [&] {
    return std::string(op) + ": " + text(qkv) + " is no packed q, k, v of " +
           std::to_string(heads) + " heads";
  });
}

inline void check_largest_scores(int64_t heads, const Tensor& qkv, const Tensor& y) {
  check_heads("largest_scores", heads, qkv);
  check(y.numel() == heads && y.dtype() == compute_type(qkv.dtype()) && y.contiguous(), [&] {
    return "largest_scores: " + text(qkv) + " of " + std::to_string(heads) + " heads into " +
           text(y);
  });
}

inline void check_orthonormal(const Tensor& x, const Tensor& q) {
  check_same("orthonormal_columns", x, q);
  check(x.shape().rank() == 3 && x.shape()[1] >= x.shape()[2] && x.contiguous() && q.contiguous(),
        [&] {
          return "orthonormal_columns: " + text(x) +
                 " is no bank (K, m, n) of matrices at least as tall as wide";
        });
}

inline void check_rope(int64_t heads, const Tensor& qkv, const Tensor& angles, const Tensor& y) {
  check_heads("rope", heads, qkv);
  check_same("rope", qkv, y);
  int64_t size = qkv.cols() / (3 * heads);
  check(size % 2 == 0 && angles.cols() == size && qkv.shape()[-2] <= angles.rows(), [&] {
    return "rope: " + text(qkv) + " with angles " + text(angles) + " for heads of size " +
           std::to_string(size);
  });
}

inline void check_gather(const Tensor& table, const Tensor& tokens, const Tensor& positions,
                         const Tensor& y) {
  check(y.numel() == tokens.numel() * table.cols() && y.dtype() == table.dtype() && y.contiguous(),
        [&] { return "gather: " + text(table) + " into " + text(y); });
  int64_t times = tokens.cols();
  check(!positions || (positions.cols() == table.cols() && positions.rows() >= times), [&] {
    return "gather: " + std::to_string(times) + " positions wanted, table of positions " +
           text(positions);
  });
}

inline void check_gather_backward(const Tensor& tokens, const Tensor& dy, const Tensor& table) {
  check(table.cols() == dy.cols() && dy.rows() == tokens.numel() &&
            table.dtype() == compute_type(dy.dtype()),
        [&] { return "gather backward: " + text(dy) + " into " + text(table); });
}

}  // namespace murmur
