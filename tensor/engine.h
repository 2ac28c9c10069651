// tensor/engine.h - what a processor must be able to do. tensor/cpu/ and tensor/cuda/ implement it,
// file by file under the same names; everything above calls engine(device) and knows no more.
//
// Letters in shapes: B batch, T time, C width, H heads, D head size, V vocabulary, K bank, N rows.
// Outputs are tensors the caller made. `Into` is a destination that is either written or added to:
// that is how gradients of several uses of one value gather without zeroing and without extra adds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "tensor/tensor.h"

namespace murmur {

#define UNARY(name, Functor, low, high, summary) name,
#define BINARY(name, Functor, low, high, summary)
#define FUNCTION(name, summary)
enum class Unary : uint8_t {
#include "tensor/ops/ops.def"
};
#undef UNARY
#undef BINARY
#define UNARY(name, Functor, low, high, summary)
#define BINARY(name, Functor, low, high, summary) name,
enum class Binary : uint8_t {
#include "tensor/ops/ops.def"
};
#undef UNARY
#undef BINARY
#undef FUNCTION

enum class Norm : uint8_t { layer, rms };

struct Into {
  Tensor& tensor;
  bool accumulate = false;
};

// A number to multiply by, in two parts: `value` is known here, `by` lies on the device, so that
// what was computed there need not travel to the host and back. by: one number, or one for each of
// K equal parts of the tensor it is applied to (the matrices of a bank).
struct Factor {
  double value = 1;
  Tensor by = {};
  Factor(double value) : value(value) {}
  Factor(double value, Tensor by) : value(value), by(std::move(by)) {}
};

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

class Engine {
 public:
  virtual ~Engine() = default;

  // memory ---------------------------------------------------------------------------------------
  virtual void* allocate(size_t bytes) const = 0;  // nullptr when there is none
  virtual void release(void* data, size_t bytes) const = 0;
  virtual void fill(Tensor& x, double value) const = 0;
  // Converts the element type; either side may lie on another device.
  virtual void copy(const Tensor& from, Tensor& to) const = 0;
  // The one number of x, for a caller who asks later: calling the result waits until it is there.
  virtual std::function<double()> read_later(const Tensor& x) const = 0;
  virtual void synchronize() const = 0;  // waits until everything asked for is done
  // What `work` asks of this engine, as one thing that can be done again and again: on a GPU one
  // launch instead of hundreds. `work` must have run once before, must keep its tensors, and must
  // not read a number back. Calling capture() does not do the work; calling the result does.
  virtual std::function<void()> capture(const std::function<void()>& work) const = 0;

  // elementwise ----------------------------------------------------------------------------------
  virtual void map(Unary op, const Tensor& x, Tensor& y) const = 0;
  virtual void map_backward(Unary op, const Tensor& x, const Tensor& dy, Into dx) const = 0;
  // b has a's shape, or the shape of a's last dimensions: it is then repeated over the first ones.
  virtual void zip(Binary op, const Tensor& a, const Tensor& b, Tensor& y) const = 0;
  // Gradient to the left or the right operand, as if b had a's shape.
  virtual void zip_backward(Binary op, bool left, const Tensor& a, const Tensor& b,
                            const Tensor& dy, Into d) const = 0;
  // y (+)= alpha x; y may be of another type
  virtual void scale(const Factor& alpha, const Tensor& x, Into y) const = 0;
  // y <- (1 - t) y + t x: one step of an exponential moving average
  virtual void lerp(double t, const Tensor& x, Tensor& y) const = 0;

  // updates: what moves parameters, in one pass over memory each ---------------------------------
  // w <- (1 - rate decay) w - rate d, and shadow <- w: the one place where parameters move
  // (optim/update.cpp). An empty shadow is left alone. `cautious`: elements decay only where d and
  // w have one sign, that is where the step does not already shrink them (arXiv 2510.12402).
  virtual void descend(const Factor& rate, double decay, bool cautious, const Tensor& d, Tensor& w,
                       Tensor& shadow) const = 0;
  // The fused update of AdamW (optim/adamw.cpp): moves m and v, writes the direction. step: (1)
  virtual void adam(const Tensor& gradient, Tensor& m, Tensor& v, Tensor& direction, double beta1,
                    double beta2, double eps, const Tensor& step) const = 0;
  // m <- decay m + weight g, then u <- from_m m + from_g g; u may be of another type.
  virtual void momentum(const Tensor& gradient, Tensor& m, Tensor& u, double decay, double weight,
                        double from_m, double from_g) const = 0;
  // factor <- min(1, limit / (sqrt(squares) + 1e-6)), for clipping. Both (1). `exactly`: limit /
  // sqrt(squares), so that what it multiplies gets the length `limit`; 0 where squares are.
  virtual void clip_factor(const Tensor& squares, double limit, bool exactly,
                           Tensor& factor) const = 0;
  // Numbers f_k with f_k x_k = matrix k divided by (its Frobenius norm + eps), and their squares,
  // for products that normalise as they go; both fp32 (K). A matrix whose squares would leave the
  // range of fp32 is brought into it first, in place; an engine may as well divide in place.
  virtual void normalizers(Tensor& bank, double eps, Tensor& f, Tensor& squared) const = 0;

  // Columns of q: an orthonormal basis of the columns of x, matrix by matrix, in order: column j of
  // q lies in the span of columns 0..j of x (the Q of a QR decomposition, up to signs). A column
  // that depends on those before it gives way to a unit vector. x, q: (K, m, n) with m >= n, fp32
  // or fp64.
  virtual void orthonormal_columns(const Tensor& x, Tensor& q) const = 0;

  // mixing: what neighbours in a graph of ranks exchange -----------------------------------------
  // y <- x + sum_j weights[j] (theirs[j] - own): gossip in difference form, in one pass, the sum
  // first and in the order of j (dist/mixing.h). own: what the others were sent of x, perhaps x
  // itself. All contiguous and of one shape; x and y fp32 or fp64 and perhaps the same tensor, own
  // and theirs of one type.
  virtual void mix(const Tensor& x, const Tensor& own, const std::vector<Tensor>& theirs,
                   const std::vector<double>& weights, Tensor& y) const = 0;
  // packed <- x in whole numbers from -127 to 127, with a bf16 scale for every 64 elements; and
  // back (tensor/ops/quantize.h). packed: int32 words that hold x.numel() bytes, then the scales:
  // packed_words(x.numel()). Both contiguous. Same numbers, same words.
  virtual void quantize(const Tensor& x, Tensor& packed) const = 0;
  virtual void dequantize(const Tensor& packed, Tensor& x) const = 0;

  // reduce ---------------------------------------------------------------------------------------
  virtual void sum_rows(const Tensor& x, Into y) const = 0;  // (N, C) -> (C)
  // y[k] <- factor (sum of part k of x): x is K equal parts for y of K elements. In double, in a
  // fixed order.
  virtual void sum(double factor, const Tensor& x, Tensor& y) const = 0;
  virtual void sum_of_squares(const Tensor& x, Tensor& y) const = 0;

  // rows -----------------------------------------------------------------------------------------
  virtual void softmax(const Tensor& x, Tensor& y) const = 0;
  virtual void softmax_backward(const Tensor& y, const Tensor& dy, Into dx) const = 0;
  // sum = x + residual and y = norm(sum); without residual, y = norm(x). statistics: (N, 2).
  virtual void norm(Norm kind, const Tensor& x, const Tensor& residual, const Tensor& gain,
                    const Tensor& bias, Tensor& sum, Tensor& y, Tensor& statistics) const = 0;
  virtual void norm_backward(Norm kind, const Tensor& x, const Tensor& gain,
                             const Tensor& statistics, const Tensor& dy, Into dx, Into dgain,
                             Into dbias) const = 0;
  // Row losses of logits (N, V) against targets (N); logits become softmax - onehot when asked.
  // Columns from `vocabulary` on are padding: they take no part, and their gradient is 0.
  virtual void cross_entropy(Tensor& logits, const Tensor& targets, Tensor& losses,
                             bool to_gradient, int64_t vocabulary) const = 0;
  // RMS-normalises every head of q and k in qkv (N, 3 H D); v is copied. statistics: (N, 2 H).
  virtual void qk_norm(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& statistics) const = 0;
  virtual void qk_norm_backward(int64_t heads, const Tensor& qkv, const Tensor& statistics,
                                const Tensor& dy, Into dx) const = 0;
  // Rotates every head of q and k; angles: (T, D), cosines then sines. direction -1 turns back.
  virtual void rope(int64_t heads, double direction, const Tensor& qkv, const Tensor& angles,
                    Into y) const = 0;

  // matmul, attention, gather, random ------------------------------------------------------------
  // Are products of bf16 much faster here than those of fp32?
  virtual bool fast_bf16() const = 0;
  // c (+)= alpha op(a) op(b) + beta plus + bias. Rank 3 with rank 3 is a batch; else a is rows() x
  // cols().
  virtual void matmul(const Tensor& a, const Tensor& b, Into c, const MatmulForm& form) const = 0;
  // Causal attention over packed qkv (B, T, 3 H D) -> y (B, T, H D), log-sum-exp (B, H, T).
  virtual void attention(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& lse) const = 0;
  virtual void attention_backward(int64_t heads, const Tensor& qkv, const Tensor& y,
                                  const Tensor& lse, const Tensor& dy, Into dqkv) const = 0;
  // y[h] <- max(y[h], the largest score q k^T / sqrt(D) of head h that the causal mask lets
  // through). y: (H), compute type.
  virtual void largest_scores(int64_t heads, const Tensor& qkv, Tensor& y) const = 0;
  // y[b, t] = table[tokens[b, t]] (+ positions[t])
  virtual void gather(const Tensor& table, const Tensor& tokens, const Tensor& positions,
                      Tensor& y) const = 0;
  virtual void gather_backward(const Tensor& tokens, const Tensor& dy, Into dtable) const = 0;
  // Counter-based: element i is a pure function of (seed, stream, i), on any device.
  virtual void random_uniform(uint64_t seed, uint64_t stream, double low, double high,
                              Tensor& x) const = 0;
  virtual void random_normal(uint64_t seed, uint64_t stream, double mean, double deviation,
                             Tensor& x) const = 0;
};

const Engine& cpu_engine();
const Engine* cuda_engine();  // nullptr where Murmur was built without CUDA or finds no GPU
// The stream on which all of it happens, in order, for a library that works on the same GPU
// (dist/nccl.cpp). It belongs to the device that is current at the first call.
void* cuda_stream();
const Engine& engine(Device device);

// Puts another engine in the place of a device's own (tensor/profile.h does); nullptr takes it out.
void replace_engine(Device device, const Engine* engine);

}  // namespace murmur
