// tensor/profile.cpp - the decorator behind Profile.
#include "tensor/profile.h"

#include <omp.h>

#include <chrono>

namespace murmur {
namespace {

using Times = std::map<std::string, OpTime>;

class Stopwatch {
 public:
  Stopwatch(Times& times, const char* name)
      : times_(times), name_(name), begin_(std::chrono::steady_clock::now()) {}
  ~Stopwatch() {
    if (omp_in_parallel()) return;
    OpTime& t = times_[name_];
    t.ms += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin_)
                .count();
    t.calls++;
  }

 private:
  Times& times_;
  const char* name_;
  std::chrono::steady_clock::time_point begin_;
};

class TimedEngine final : public Engine {
 public:
  TimedEngine(const Engine& engine, Times& times) : engine_(engine), profile_(times) {}

  void* allocate(size_t bytes) const override { return engine_.allocate(bytes); }
  void release(void* data, size_t bytes) const override { return engine_.release(data, bytes); }
  void fill(Tensor& x, double value) const override {
    Stopwatch watch(profile_, "fill");
    return engine_.fill(x, value);
  }
  void copy(const Tensor& from, Tensor& to) const override {
    Stopwatch watch(profile_, "copy");
    return engine_.copy(from, to);
  }
  void map(Unary op, const Tensor& x, Tensor& y) const override {
    Stopwatch watch(profile_, "map");
    return engine_.map(op, x, y);
  }
  void map_backward(Unary op, const Tensor& x, const Tensor& dy, Into dx) const override {
    Stopwatch watch(profile_, "map_backward");
    return engine_.map_backward(op, x, dy, dx);
  }
  void zip(Binary op, const Tensor& a, const Tensor& b, Tensor& y) const override {
    Stopwatch watch(profile_, "zip");
    return engine_.zip(op, a, b, y);
  }
  void zip_backward(Binary op, bool left, const Tensor& a, const Tensor& b, const Tensor& dy,
                    Into d) const override {
    Stopwatch watch(profile_, "zip_backward");
    return engine_.zip_backward(op, left, a, b, dy, d);
  }
  void scale(double alpha, const Tensor& x, Into y) const override {
    Stopwatch watch(profile_, "scale");
    return engine_.scale(alpha, x, y);
  }
  void lerp(double t, const Tensor& x, Tensor& y) const override {
    Stopwatch watch(profile_, "lerp");
    return engine_.lerp(t, x, y);
  }
  void descend(double step, double keep, const Tensor& d, Tensor& w) const override {
    Stopwatch watch(profile_, "descend");
    return engine_.descend(step, keep, d, w);
  }
  void adam(const Tensor& gradient, Tensor& m, Tensor& v, Tensor& direction, double beta1,
            double beta2, double correction1, double correction2, double eps) const override {
    Stopwatch watch(profile_, "adam");
    return engine_.adam(gradient, m, v, direction, beta1, beta2, correction1, correction2, eps);
  }
  void sum_rows(const Tensor& x, Into y) const override {
    Stopwatch watch(profile_, "sum_rows");
    return engine_.sum_rows(x, y);
  }
  double sum(const Tensor& x) const override {
    Stopwatch watch(profile_, "sum");
    return engine_.sum(x);
  }
  double sum_of_squares(const Tensor& x) const override {
    Stopwatch watch(profile_, "sum_of_squares");
    return engine_.sum_of_squares(x);
  }
  void softmax(const Tensor& x, Tensor& y) const override {
    Stopwatch watch(profile_, "softmax");
    return engine_.softmax(x, y);
  }
  void softmax_backward(const Tensor& y, const Tensor& dy, Into dx) const override {
    Stopwatch watch(profile_, "softmax_backward");
    return engine_.softmax_backward(y, dy, dx);
  }
  void norm(Norm kind, const Tensor& x, const Tensor& residual, const Tensor& gain,
            const Tensor& bias, Tensor& sum, Tensor& y, Tensor& statistics) const override {
    Stopwatch watch(profile_, "norm");
    return engine_.norm(kind, x, residual, gain, bias, sum, y, statistics);
  }
  void norm_backward(Norm kind, const Tensor& x, const Tensor& gain, const Tensor& statistics,
                     const Tensor& dy, Into dx, Into dgain, Into dbias) const override {
    Stopwatch watch(profile_, "norm_backward");
    return engine_.norm_backward(kind, x, gain, statistics, dy, dx, dgain, dbias);
  }
  void cross_entropy(Tensor& logits, const Tensor& targets, Tensor& losses,
                     bool to_gradient) const override {
    Stopwatch watch(profile_, "cross_entropy");
    return engine_.cross_entropy(logits, targets, losses, to_gradient);
  }
  void qk_norm(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& statistics) const override {
    Stopwatch watch(profile_, "qk_norm");
    return engine_.qk_norm(heads, qkv, y, statistics);
  }
  void qk_norm_backward(int64_t heads, const Tensor& qkv, const Tensor& statistics,
                        const Tensor& dy, Into dx) const override {
    Stopwatch watch(profile_, "qk_norm_backward");
    return engine_.qk_norm_backward(heads, qkv, statistics, dy, dx);
  }
  void rope(int64_t heads, double direction, const Tensor& qkv, const Tensor& angles,
            Into y) const override {
    Stopwatch watch(profile_, "rope");
    return engine_.rope(heads, direction, qkv, angles, y);
  }
  void matmul(const Tensor& a, const Tensor& b, Into c, const MatmulForm& form) const override {
    Stopwatch watch(profile_, "matmul");
    return engine_.matmul(a, b, c, form);
  }
  void attention(int64_t heads, const Tensor& qkv, Tensor& y, Tensor& lse) const override {
    Stopwatch watch(profile_, "attention");
    return engine_.attention(heads, qkv, y, lse);
  }
  void attention_backward(int64_t heads, const Tensor& qkv, const Tensor& y, const Tensor& lse,
                          const Tensor& dy, Into dqkv) const override {
    Stopwatch watch(profile_, "attention_backward");
    return engine_.attention_backward(heads, qkv, y, lse, dy, dqkv);
  }
  void gather(const Tensor& table, const Tensor& tokens, const Tensor& positions,
              Tensor& y) const override {
    Stopwatch watch(profile_, "gather");
    return engine_.gather(table, tokens, positions, y);
  }
  void gather_backward(const Tensor& tokens, const Tensor& dy, Into dtable) const override {
    Stopwatch watch(profile_, "gather_backward");
    return engine_.gather_backward(tokens, dy, dtable);
  }
  void random_uniform(uint64_t seed, uint64_t stream, double low, double high,
                      Tensor& x) const override {
    Stopwatch watch(profile_, "random_uniform");
    return engine_.random_uniform(seed, stream, low, high, x);
  }
  void random_normal(uint64_t seed, uint64_t stream, double mean, double deviation,
                     Tensor& x) const override {
    Stopwatch watch(profile_, "random_normal");
    return engine_.random_normal(seed, stream, mean, deviation, x);
  }

 private:
  const Engine& engine_;
  Times& profile_;
};

}  // namespace

struct Profile::Implementation {
  Times times;
  TimedEngine engine;
  explicit Implementation(const Engine& timed) : engine(timed, times) {}
};

Profile::Profile(Device device)
    : implementation_(std::make_unique<Implementation>(engine(device))), device_(device) {
  replace_engine(device, &implementation_->engine);
}
Profile::~Profile() { replace_engine(device_, nullptr); }

const Times& Profile::times() const { return implementation_->times; }

}  // namespace murmur
