// tensor/profile.cpp - the decorator behind Profile.
#include "tensor/profile.h"

#include <omp.h>

#include <chrono>
#include <initializer_list>

namespace murmur {
namespace {

using Uses = std::map<std::string, OpUse>;

// A tensor a call reads or writes; what is added to is both.
struct Touched {
  double bytes = 0;
  Touched(const Tensor& x) : bytes(x ? double(x.bytes()) : 0) {}
  Touched(const std::vector<Tensor>& all) {
    for (const Tensor& x : all) bytes += Touched(x).bytes;
  }
  Touched(const Into& x) : bytes(Touched(x.tensor).bytes * (x.accumulate ? 2 : 1)) {}
};

double matmul_flops(const Tensor& a, const Into& c, const MatmulForm& form) {
  double batch = a.shape().rank() == 3 && c.tensor.shape().rank() == 3 ? double(a.shape()[0]) : 1;
  double inner = form.transpose_a ? double(a.rows()) / batch : double(a.cols());
  return 2 * double(c.tensor.numel()) * inner;
}

// `products` of T x T by D each, half of them masked away.
double attention_flops(int64_t heads, const Tensor& qkv, double products) {
  double batch = double(qkv.shape()[0]), time = double(qkv.shape()[1]);
  double size = double(qkv.cols()) / (3 * double(heads));
  return products * batch * double(heads) * time * time * size;
}

class WatchedEngine final : public Engine {
 public:
  WatchedEngine(const Engine& inner, Uses& uses) : inner_(inner), uses_(uses) {}

  void* allocate(size_t bytes) const override { return inner_.allocate(bytes); }
  void release(void* data, size_t bytes) const override { return inner_.release(data, bytes); }
  void fill(Tensor& x, double value) const override {
    watch("fill", 0, {x}, [&] { inner_.fill(x, value); });
  }
  void copy(const Tensor& from, Tensor& to) const override {
    watch("copy", 0, {from, to}, [&] { inner_.copy(from, to); });
  }
  std::function<double()> read_later(const Tensor& x) const override {
    return inner_.read_later(x);
  }
  void synchronize() const override { return inner_.synchronize(); }
  std::function<void()> capture(const std::function<void()>& work) const override {
    return inner_.capture(work);
  }
  void map(Unary op, const Tensor& x, Tensor& y) const override {
    watch("map", 0, {x, y}, [&] { inner_.map(op, x, y); });
  }
  void map_backward(Unary op, const Tensor& x, const Tensor& dy, Into dx) const override {
    watch("map_backward", 0, {x, dy, dx}, [&] { inner_.map_backward(op, x, dy, dx); });
  }
  void zip(Binary op, const Tensor& a, const Tensor& b, Tensor& y) const override {
    watch("zip", 0, {a, b, y}, [&] { inner_.zip(op, a, b, y); });
  }
  void zip_backward(Binary op, bool left, const Tensor& a, const Tensor& b, const Tensor& dy,
                    Into d) const override {
    watch("zip_backward", 0, {a, b, dy, d}, [&] { inner_.zip_backward(op, left, a, b, dy, d); });
  }
  void scale(const Factor& alpha, const Tensor& x, Into y) const override {
    watch("scale", 0, {x, y}, [&] { inner_.scale(alpha, x, y); });
  }
  void lerp(double t, const Tensor& x, Tensor& y) const override {
    watch("lerp", 0, {x, y, y}, [&] { inner_.lerp(t, x, y); });
  }
  void descend(const Factor& rate, double decay, bool cautious, const Tensor& d, Tensor& w,
               Tensor& shadow) const override {
    watch("descend", 0, {d, w, w, shadow},
          [&] { inner_.descend(rate, decay, cautious, d, w, shadow); });
  }
  void adam(const Tensor& gradient, Tensor& m, Tensor& v, Tensor& direction, double beta1,
            double beta2, double eps, const Tensor& step) const override {
    watch("adam", 0, {gradient, m, m, v, v, direction},
          [&] { inner_.adam(gradient, m, v, direction, beta1, beta2, eps, step); });
  }
  void momentum(const Tensor& gradient, Tensor& m, Tensor& u, double decay, double weight,
                double from_m, double from_g) const override {
    watch("momentum", 0, {gradient, m, m, u},
          [&] { inner_.momentum(gradient, m, u, decay, weight, from_m, from_g); });
  }
  void mix(const Tensor& x, const Tensor& own, const std::vector<Tensor>& theirs,
           const std::vector<double>& weights, Tensor& y) const override {
    bool apart = own && own.raw() != x.raw();
    watch("mix", 0, {x, apart ? own : Tensor(), theirs, y},
          [&] { inner_.mix(x, own, theirs, weights, y); });
  }
  void quantize(const Tensor& x, Tensor& packed) const override {
    watch("quantize", 0, {x, packed}, [&] { inner_.quantize(x, packed); });
  }
  void dequantize(const Tensor& packed, Tensor& x) const override {
    watch("dequantize", 0, {packed, x}, [&] { inner_.dequantize(packed, x); });
  }
  void clip_factor(const Tensor& squares, double limit, bool exactly,
                   Tensor& factor) const override {
    watch("clip_factor", 0, {}, [&] { inner_.clip_factor(squares, limit, exactly, factor); });
  }
  void normalizers(Tensor& bank, double eps, Tensor& f, Tensor& squared) const override {
    watch("normalizers", 0, {bank}, [&] { inner_.normalizers(bank, eps, f, squared); });
  }
  void orthonormal_columns(const Tensor& x, Tensor& q) const override {
    watch("orthonormal_columns", 4 * double(x.numel()) * double(x.cols()), {x, q},
          [&] { inner_.orthonormal_columns(x, q); });
  }
  void sum_rows(const Tensor& x, Into y) const override {
    watch("sum_rows", 0, {x, y}, [&] { inner_.sum_rows(x, y); });
  }
  void sum(double factor, const Tensor& x, Tensor& y) const override {
    watch("sum", 0, {x}, [&] { inner_.sum(factor, x, y); });
  }
  void sum_of_squares(const Tensor& x, Tensor& y) const override {
    watch("sum_of_squares", 0, {x}, [&] { inner_.sum_of_squares(x, y); });
  }
  void softmax(const Tensor& x, Tensor& y) const override {
    watch("softmax", 0, {x, y}, [&] { inner_.softmax(x, y); });
  }
  void softmax_backward(const Tensor& y, const Tensor& dy, Into dx) const override {
    watch("softmax_backward", 0, {y, dy, dx}, [&] { inner_.softmax_backward(y, dy, dx); });
  }
  void norm(Norm kind, const Tensor& x, const Tensor& residual, const Tensor& gain,
            const Tensor& bias, Tensor& sum, Tensor& y, Tensor& statistics) const override {
    watch("norm", 0, {x, residual, sum, y},
          [&] { inner_.norm(kind, x, residual, gain, bias, sum, y, statistics); });
  }
  void norm_backward(Norm kind, const Tensor& x, const Tensor& gain, const Tensor& statistics,
                     const Tensor& dy, Into dx, Into dgain, Into dbias) const override {
    watch("norm_backward", 0, {x, dy, dx},
          [&] { inner_.norm_backward(kind, x, gain, statistics, dy, dx, dgain, dbias); });
  }
  void cross_entropy(Tensor& logits, const Tensor& targets, Tensor& losses, bool to_gradient,
                     int64_t vocabulary) const override {
    watch("cross_entropy", 0, {logits, to_gradient ? logits : Tensor()},
          [&] { inner_.cross_entropy(logits, targets, losses, to_gradient, vocabulary); });
  }
  void qk_norm(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& statistics) const override {
    watch("qk_norm", 0, {qkv, y}, [&] { inner_.qk_norm(heads, qkv, y, statistics); });
  }
  void qk_norm_backward(int64_t heads, const Tensor& qkv, const Tensor& statistics,
                        const Tensor& dy, Into dx) const override {
    watch("qk_norm_backward", 0, {qkv, dy, dx},
          [&] { inner_.qk_norm_backward(heads, qkv, statistics, dy, dx); });
  }
  void rope(int64_t heads, double direction, const Tensor& qkv, const Tensor& angles,
            Into y) const override {
    watch("rope", 0, {qkv, y}, [&] { inner_.rope(heads, direction, qkv, angles, y); });
  }
  bool fast_bf16() const override { return inner_.fast_bf16(); }
  void matmul(const Tensor& a, const Tensor& b, Into c, const MatmulForm& form) const override {
    watch("matmul", matmul_flops(a, c, form), {a, b, c, form.plus, form.activated, form.slope_at},
          [&] { inner_.matmul(a, b, c, form); });
  }
  void attention(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& lse) const override {
    watch("attention", attention_flops(heads, qkv, 2), {qkv, y},
          [&] { inner_.attention(heads, qkv, y, lse); });
  }
  void attention_backward(int64_t heads, const Tensor& qkv, const Tensor& y, const Tensor& lse,
                          const Tensor& dy, Into dqkv) const override {
    watch("attention_backward", attention_flops(heads, qkv, 5), {qkv, y, dy, dqkv},
          [&] { inner_.attention_backward(heads, qkv, y, lse, dy, dqkv); });
  }
  void largest_scores(int64_t heads, const Tensor& qkv, Tensor& y) const override {
    watch("largest_scores", attention_flops(heads, qkv, 1), {qkv},
          [&] { inner_.largest_scores(heads, qkv, y); });
  }
  void gather(const Tensor& table, const Tensor& tokens, const Tensor& positions,
              Tensor& y) const override {
    watch("gather", 0, {y, y}, [&] { inner_.gather(table, tokens, positions, y); });
  }
  void gather_backward(const Tensor& tokens, const Tensor& dy, Into dtable) const override {
    watch("gather_backward", 0, {dy, dtable}, [&] { inner_.gather_backward(tokens, dy, dtable); });
  }
  void random_uniform(uint64_t seed, uint64_t stream, double low, double high,
                      Tensor& x) const override {
    watch("random_uniform", 0, {x}, [&] { inner_.random_uniform(seed, stream, low, high, x); });
  }
  void random_normal(uint64_t seed, uint64_t stream, double mean, double deviation,
                     Tensor& x) const override {
    watch("random_normal", 0, {x}, [&] { inner_.random_normal(seed, stream, mean, deviation, x); });
  }

 private:
  template <class F>
  void watch(const char* name, double flops, std::initializer_list<Touched> touched,
             const F& call) const {
    if (omp_in_parallel()) return call();
    auto begin = std::chrono::steady_clock::now();
    call();
    inner_.synchronize();
    OpUse& use = uses_[name];
    use.ms +=
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    use.calls++;
    use.flops += flops;
    for (const Touched& t : touched) use.bytes += t.bytes;
  }

  const Engine& inner_;
  Uses& uses_;
};

}  // namespace

struct Profile::Implementation {
  Uses uses;
  WatchedEngine engine;
  explicit Implementation(const Engine& inner) : engine(inner, uses) {}
};

Profile::Profile(Device device)
    : implementation_(std::make_unique<Implementation>(engine(device))), device_(device) {
  replace_engine(device, &implementation_->engine);
}
Profile::~Profile() { replace_engine(device_, nullptr); }

const Uses& Profile::uses() const { return implementation_->uses; }

}  // namespace murmur
