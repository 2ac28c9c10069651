// tensor/cuda/cuda_engine.h - the engine of tensor/engine.h on an NVIDIA GPU: for fp32 and bf16.
//
// One stream, no waiting: a call returns when its kernels are in the queue. No kernel adds with
// atomics and every sum has an order fixed by its sizes: the same call gives the same bits.
#pragma once

#include "tensor/engine.h"

namespace murmur {

class CudaEngine final : public Engine {
 public:
  // memory.cu: to copy(); stream.cpp
  void* allocate(size_t bytes) const override;
  void release(void* data, size_t bytes) const override;
  void fill(Tensor& x, double value) const override;
  void copy(const Tensor& from, Tensor& to) const override;
  std::function<double()> read_later(const Tensor& x) const override;
  void synchronize() const override;
  std::function<void()> capture(const std::function<void()>& work) const override;

  // map.cu
  void map(Unary op, const Tensor& x, Tensor& y) const override;
  void map_backward(Unary op, const Tensor& x, const Tensor& dy, Into dx) const override;
  void scale(const Factor& alpha, const Tensor& x, Into y) const override;
  void lerp(double t, const Tensor& x, Tensor& y) const override;

  // zip.cu
  void zip(Binary op, const Tensor& a, const Tensor& b, Tensor& y) const override;
  void zip_backward(Binary op, bool left, const Tensor& a, const Tensor& b, const Tensor& dy,
                    Into d) const override;

  // update.cu
  void descend(const Factor& rate, double decay, bool cautious, const Tensor& d, Tensor& w,
               Tensor& shadow) const override;
  void adam(const Tensor& gradient, Tensor& m, Tensor& v, Tensor& direction, double beta1,
            double beta2, double eps, const Tensor& step) const override;
  void momentum(const Tensor& gradient, Tensor& m, Tensor& u, double decay, double weight,
                double from_m, double from_g) const override;
  void clip_factor(const Tensor& squares, double limit, bool exactly,
                   Tensor& factor) const override;
  void normalizers(Tensor& bank, double eps, Tensor& f, Tensor& squared) const override;

  // orthonormal.cu
  void orthonormal_columns(const Tensor& x, Tensor& q) const override;

  // mix.cu
  void mix(const Tensor& x, const Tensor& own, const std::vector<Tensor>& theirs,
           const std::vector<double>& weights, Tensor& y) const override;
  void quantize(const Tensor& x, Tensor& packed) const override;
  void dequantize(const Tensor& packed, Tensor& x) const override;

  // reduce.cu
  void sum_rows(const Tensor& x, Into y) const override;
  void sum(double factor, const Tensor& x, Tensor& y) const override;
  void sum_of_squares(const Tensor& x, Tensor& y) const override;

  // rows.cu
  void softmax(const Tensor& x, Tensor& y) const override;
  void softmax_backward(const Tensor& y, const Tensor& dy, Into dx) const override;
  void norm(Norm kind, const Tensor& x, const Tensor& residual, const Tensor& gain,
            const Tensor& bias, Tensor& sum, Tensor& y, Tensor& statistics) const override;
  void norm_backward(Norm kind, const Tensor& x, const Tensor& gain, const Tensor& statistics,
                     const Tensor& dy, Into dx, Into dgain, Into dbias) const override;
  void cross_entropy(Tensor& logits, const Tensor& targets, Tensor& losses, bool to_gradient,
                     int64_t vocabulary) const override;
  void qk_norm(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& statistics) const override;
  void qk_norm_backward(int64_t heads, const Tensor& qkv, const Tensor& statistics,
                        const Tensor& dy, Into dx) const override;
  void rope(int64_t heads, double direction, const Tensor& qkv, const Tensor& angles,
            Into y) const override;

  // matmul.cpp
  bool fast_bf16() const override { return true; }
  void matmul(const Tensor& a, const Tensor& b, Into c, const MatmulForm& form) const override;

  // attention.cu
  void attention(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& lse) const override;
  void attention_backward(int64_t heads, const Tensor& qkv, const Tensor& y, const Tensor& lse,
                          const Tensor& dy, Into dqkv) const override;
  void largest_scores(int64_t heads, const Tensor& qkv, Tensor& y) const override;

  // gather.cu
  void gather(const Tensor& table, const Tensor& tokens, const Tensor& positions,
              Tensor& y) const override;
  void gather_backward(const Tensor& tokens, const Tensor& dy, Into dtable) const override;

  // random.cu
  void random_uniform(uint64_t seed, uint64_t stream, double low, double high,
                      Tensor& x) const override;
  void random_normal(uint64_t seed, uint64_t stream, double mean, double deviation,
                     Tensor& x) const override;
};

}  // namespace murmur
