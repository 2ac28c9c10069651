// autograd/functions.h - the differentiable functions. tensor/ops/ops.def is the list of all.
//
// Shapes: B batch, T time, C width, H heads, D = C / H head size, V vocabulary, N rows.
#pragma once

#include "autograd/var.h"
#include "tensor/ops.h"

namespace murmur {

// A function of the list; autograd/elementwise.h has one by the name of each.
Var apply(Unary op, const Var& x);
Var apply(Binary op, const Var& a, const Var& b);

Var scale(const Var& x, double factor);
Var sum(const Var& x);   // -> ()
Var mean(const Var& x);  // -> ()
Var reshape(const Var& x, Shape shape);

// a (m, k) b (k, n) -> (m, n), or banks (K, m, k) (K, k, n) -> (K, m, n).
Var matmul(const Var& a, const Var& b);
// x (.., in), weight (out, in), bias (out) or none -> (.., out)
Var linear(const Var& x, const Var& weight, const Var& bias = {});

// linear(f(linear(x, w1, b1)), w2, b2), with f applied while the products' tiles are in the cache.
Var mlp(const Var& x, const Var& w1, const Var& b1, Unary f, const Var& w2, const Var& b2);

Var softmax(const Var& x);
Var norm(Norm kind, const Var& x, const Var& gain, const Var& bias = {});
inline Var layer_norm(const Var& x, const Var& gain, const Var& bias = {}) {
  return norm(Norm::layer, x, gain, bias);
}
inline Var rms_norm(const Var& x, const Var& gain) { return norm(Norm::rms, x, gain); }
// sum = x + branch and norm(sum) in one pass: the joint of two residual branches.
struct SumAndNorm {
  Var sum, norm;
};
SumAndNorm add_norm(Norm kind, const Var& x, const Var& branch, const Var& gain,
                    const Var& bias = {});

// Packed qkv (B, T, 3 C): queries, keys, values; each H heads of D columns.
Var qk_norm(const Var& qkv, int64_t heads);
Tensor rope_angles(int64_t time, int64_t head_size, DType dtype, double base = 10000);  // (T, D)
Var rope(const Var& qkv, const Tensor& angles, int64_t heads);
Var attention(const Var& qkv, int64_t heads);  // -> (B, T, C)

// tokens (B, T) int32, table (V, C), positions (>= T, C) or none -> (B, T, C)
Var embedding(const Tensor& tokens, const Var& table, const Var& positions = {});

// Mean over rows, in nats. logits (.., V), targets: one int32 per row. `vocabulary`: columns from
// there on are padding, as if they were not there; 0: none is.
Var cross_entropy(const Var& logits, const Tensor& targets, int64_t vocabulary = 0);
// cross_entropy(linear(x, weight), targets), chunk of rows by chunk of rows: the logits of the last
// chunk are kept for backward, those of earlier chunks are computed again there.
// `chunk_elements` logits are alive at a time; 0 takes what suits the device: 16M, which caches
// bear, on a CPU, and 4G on a GPU, where a second product costs more than the memory.
Var head_cross_entropy(const Var& x, const Var& weight, const Tensor& targets,
                       int64_t vocabulary = 0, int64_t chunk_elements = 0);

}  // namespace murmur
