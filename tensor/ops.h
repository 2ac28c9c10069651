// tensor/ops.h - every operation on tensors, each once. Their kernels are in tensor/ops/,
// tensor/cpu/ and tensor/cuda/; where the tensors lie decides which of them runs (tensor/op.h).
//
// Letters in shapes: B batch, T time, C width, H heads, D head size, V vocabulary, K bank, N rows.
// Outputs are tensors the caller made. Types are fp32, bf16 and, on a CPU, fp64, the same for all
// tensors unless said otherwise; "compute type" is fp64 for fp64 and fp32 for the rest. What does
// not fit throws an Error that begins with the operation's name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tensor/op.h"

namespace murmur {

// A function of one number, f, and its slope f'. Those of the list tensor/ops/ops.def have names in
// tensor/elementwise.h.
struct UnaryFunction {
  struct Kernels {
    void (*forward)(double constant, const Tensor& x, Tensor& y);  // y <- f(x)
    void (*backward)(double constant, const Tensor& x, const Tensor& dy,
                     Into dx);  // dx (+)= dy f'(x)
  };
  const char* name;
  bool has_constant;
  Kernels cpu;
  // One row of `type` in the cache: y <- f(x), and d <- d f'(x).
  void (*value_row)(DType type, double constant, int64_t n, const void* x, void* y);
  void (*slope_row)(DType type, double constant, int64_t n, const void* x, void* d);
  mutable Kernels cuda = {};
};
// As a value: the function, and the constant in it where it has one.
struct Unary {
  const UnaryFunction* function = nullptr;
  double constant = 0;
  bool operator==(const Unary&) const = default;
};

// A function of two numbers, f, and its slopes to the left and to the right one.
struct BinaryFunction {
  struct Kernels {
    void (*forward)(const Tensor& a, const Tensor& b, Tensor& y);
    void (*backward)(bool left, const Tensor& a, const Tensor& b, const Tensor& dy, Into d);
  };
  const char* name;
  Kernels cpu;
  mutable Kernels cuda = {};
};
struct Binary {
  const BinaryFunction* function = nullptr;
  bool operator==(const Binary&) const = default;
};

enum class Norm : uint8_t { layer, rms };

struct MatmulForm {
  bool transpose_a = false;
  bool transpose_b = false;
  Factor alpha = 1;
  Tensor plus = {};  // c <- alpha op(a) op(b) + beta plus; of c's shape and type
  double beta = 1;
  bool symmetric = false;  // the caller knows that the result is: half of it need be computed
  Tensor bias = {};        // (columns of the result), compute type or c's; added to every row
  // When given: also sums (+)= the sum of a's rows as they are stored, compute type. With a = dy
  // transposed, c is a weight's gradient and this its bias's.
  Tensor sums = {};
  bool add_to_sums = false;
  // What else happens to a tile of the result while it is in the cache, with f = `op`:
  Unary op = {};
  Tensor activated = {};  // when given: activated <- f(c)
  Tensor slope_at = {};   // when given: c <- c f'(slope_at)
};

constexpr int64_t kQuantizedBlock = 64;
constexpr int64_t packed_words(int64_t count) {
  int64_t blocks = (count + kQuantizedBlock - 1) / kQuantizedBlock;
  return (count + 3) / 4 + (blocks + 1) / 2;
}

namespace ops {

// memory ---------------------------------------------------------------------------------------
extern const Op<void(Tensor& x, double value)> fill;
// Converts the element type; either side may lie on another device.
extern const Op<void(const Tensor& from, Tensor& to)> copy;

// elementwise ----------------------------------------------------------------------------------
extern const Op<void(Unary op, const Tensor& x, Tensor& y)> map;
extern const Op<void(Unary op, const Tensor& x, const Tensor& dy, Into dx)> map_backward;
// b has a's shape, or the shape of a's last dimensions: it is then repeated over the first ones.
extern const Op<void(Binary op, const Tensor& a, const Tensor& b, Tensor& y)> zip;
// Gradient to the left or the right operand, as if b had a's shape.
extern const Op<void(Binary op, bool left, const Tensor& a, const Tensor& b, const Tensor& dy,
                     Into d)>
    zip_backward;
// y (+)= alpha x; y may be of another type
extern const Op<void(const Factor& alpha, const Tensor& x, Into y)> scale;
// y <- (1 - t) y + t x: one step of an exponential moving average
extern const Op<void(double t, const Tensor& x, Tensor& y)> lerp;

// updates: what moves parameters, in one pass over memory each ---------------------------------
// w <- (1 - rate decay) w - rate d, and shadow <- w: the one place where parameters move
// (optim/update.cpp). An empty shadow is left alone. `cautious`: elements decay only where d and
// w have one sign, that is where the step does not already shrink them (arXiv 2510.12402).
extern const Op<void(const Factor& rate, double decay, bool cautious, const Tensor& d, Tensor& w,
                     Tensor& shadow)>
    apply_update;
// The direction of Adam (optim/adamw.cpp): moves m and v, writes it. step: (1) fp64
extern const Op<void(const Tensor& gradient, Tensor& m, Tensor& v, Tensor& direction, double beta1,
                     double beta2, double eps, const Tensor& step)>
    adam;
// Both in one pass: adam of clip g, then apply_update with the direction, which is not kept.
extern const Op<void(const Factor& clip, const Tensor& gradient, Tensor& m, Tensor& v, double beta1,
                     double beta2, double eps, const Tensor& step, const Factor& rate, double decay,
                     bool cautious, Tensor& w, Tensor& shadow)>
    adam_update;
// m <- decay m + weight g, then u <- from_m m + from_g g; u may be of another type.
extern const Op<void(const Tensor& gradient, Tensor& m, Tensor& u, double decay, double weight,
                     double from_m, double from_g)>
    momentum;
// factor <- min(1, limit / (sqrt(squares) + 1e-6)), for clipping. Both (1). `exactly`: limit /
// sqrt(squares), so that what it multiplies gets the length `limit`; 0 where squares are.
extern const Op<void(const Tensor& squares, double limit, bool exactly, Tensor& factor)>
    clip_factor;
// Numbers f_k with f_k x_k = matrix k divided by (its Frobenius norm + eps), and their squares,
// for products that normalise as they go; both fp32 (K). A matrix whose squares would leave the
// range of fp32 is brought into it first, in place; an engine may as well divide in place.
extern const Op<void(Tensor& bank, double eps, Tensor& f, Tensor& squared)> normalizers;

// Columns of q: an orthonormal basis of the columns of x, matrix by matrix, in order: column j of
// q lies in the span of columns 0..j of x (the Q of a QR decomposition, up to signs). A column
// that depends on those before it gives way to a unit vector. x, q: (K, m, n) with m >= n, fp32
// or fp64.
extern const Op<void(const Tensor& x, Tensor& q)> orthonormal_columns;

// mixing: what neighbours in a graph of ranks exchange -----------------------------------------
// y <- x + sum_j weights[j] (theirs[j] - own): gossip in difference form, in one pass, the sum
// first and in the order of j (dist/mixing.h). own: what the others were sent of x, perhaps x
// itself. All contiguous and of one shape; x and y fp32 or fp64 and perhaps the same tensor, own
// and theirs of one type.
extern const Op<void(const Tensor& x, const Tensor& own, const std::vector<Tensor>& theirs,
                     const std::vector<double>& weights, Tensor& y)>
    mix;
// packed <- x in whole numbers from -127 to 127, with a bf16 scale for every 64 elements; and
// back (tensor/ops/quantize.h). packed: int32 words that hold x.numel() bytes, then the scales:
// packed_words(x.numel()). Both contiguous. Same numbers, same words.
extern const Op<void(const Tensor& x, Tensor& packed)> quantize;
extern const Op<void(const Tensor& packed, Tensor& x)> dequantize;

// reduce ---------------------------------------------------------------------------------------
extern const Op<void(const Tensor& x, Into y)> sum_rows;  // (N, C) -> (C)
// y[k] <- factor (sum of part k of x): x is K equal parts for y of K elements. In double, in a
// fixed order.
extern const Op<void(double factor, const Tensor& x, Tensor& y)> sum;
extern const Op<void(const Tensor& x, Tensor& y)> sum_of_squares;

// rows -----------------------------------------------------------------------------------------
extern const Op<void(const Tensor& x, Tensor& y)> softmax;
extern const Op<void(const Tensor& y, const Tensor& dy, Into dx)> softmax_backward;
// sum = x + residual and y = norm(sum); without residual, y = norm(x). statistics: (N, 2).
extern const Op<void(Norm kind, const Tensor& x, const Tensor& residual, const Tensor& gain,
                     const Tensor& bias, Tensor& sum, Tensor& y, Tensor& statistics)>
    norm;
extern const Op<void(Norm kind, const Tensor& x, const Tensor& gain, const Tensor& statistics,
                     const Tensor& dy, Into dx, Into dgain, Into dbias)>
    norm_backward;
// Row losses of logits (N, V) against targets (N); logits become softmax - onehot when asked.
// Columns from `vocabulary` on are padding: they take no part, and their gradient is 0.
extern const Op<void(Tensor& logits, const Tensor& targets, Tensor& losses, bool to_gradient,
                     int64_t vocabulary)>
    cross_entropy;
// RMS-normalises every head of q and k in qkv (N, 3 H D); v is copied. statistics: (N, 2 H).
extern const Op<void(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& statistics)> qk_norm;
extern const Op<void(int64_t heads, const Tensor& qkv, const Tensor& statistics, const Tensor& dy,
                     Into dx)>
    qk_norm_backward;
// Rotates every head of q and k; angles: (T, D), cosines then sines. direction -1 turns back.
extern const Op<void(int64_t heads, double direction, const Tensor& qkv, const Tensor& angles,
                     Into y)>
    rope;

// matmul, attention, gather, random ------------------------------------------------------------
// c (+)= alpha op(a) op(b) + beta plus + bias. Rank 3 with rank 3 is a batch; else a is rows() x
// cols().
extern const Op<void(const Tensor& a, const Tensor& b, Into c, const MatmulForm& form)> matmul;
// Causal attention over packed qkv (B, T, 3 H D) -> y (B, T, H D), log-sum-exp (B, H, T).
extern const Op<void(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& lse)> attention;
extern const Op<void(int64_t heads, const Tensor& qkv, const Tensor& y, const Tensor& lse,
                     const Tensor& dy, Into dqkv)>
    attention_backward;
// y[h] <- max(y[h], the largest score q k^T / sqrt(D) of head h that the causal mask lets
// through). y: (H), compute type.
extern const Op<void(int64_t heads, const Tensor& qkv, Tensor& y)> largest_scores;
// y[b, t] = table[tokens[b, t]] (+ positions[t])
extern const Op<void(const Tensor& table, const Tensor& tokens, const Tensor& positions, Tensor& y)>
    gather;
extern const Op<void(const Tensor& tokens, const Tensor& dy, Into dtable)> gather_backward;
// Counter-based: element i is a pure function of (seed, stream, i), on any device.
extern const Op<void(uint64_t seed, uint64_t stream, double low, double high, Tensor& x)>
    random_uniform;
extern const Op<void(uint64_t seed, uint64_t stream, double mean, double deviation, Tensor& x)>
    random_normal;

}  // namespace ops
}  // namespace murmur
