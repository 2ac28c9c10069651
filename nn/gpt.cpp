// nn/gpt.cpp - the model, one line per step of the formula in gpt.h.
#include "nn/gpt.h"

#include <cmath>

#include "autograd/checkpoint.h"
#include "tensor/elementwise.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

constexpr double kDeviation = 0.02;

void check_config(const GptConfig& c) {
  auto positive = [](const char* name, int64_t value) {
    if (value <= 0)
      throw InputError(std::string(name) + ": " + std::to_string(value) + " must be positive");
  };
  positive("n_layer", c.n_layer);
  positive("n_head", c.n_head);
  positive("n_embd", c.n_embd);
  positive("block_size", c.block_size);
  positive("vocab_size", c.vocab_size);
  if (c.true_vocab_size < 0 || c.true_vocab_size > c.vocab_size) {
    throw InputError("vocab_size: " + std::to_string(c.vocab_size) + " is smaller than the " +
                     std::to_string(c.true_vocab_size) + " tokens there are");
  }
  if (c.n_embd % c.n_head != 0) {
    throw InputError("n_embd: " + std::to_string(c.n_embd) + " is not a multiple of n_head " +
                     std::to_string(c.n_head));
  }
  constexpr int64_t kWidestHead = 256;  // of the attention kernels
  if (c.n_embd / c.n_head > kWidestHead) {
    throw InputError("n_head: " + std::to_string(c.n_head) + " on a width of " +
                     std::to_string(c.n_embd) + " make heads of " +
                     std::to_string(c.n_embd / c.n_head) + ", at most 256 are possible; take more");
  }
  if (c.arch == Arch::modern && c.n_embd / c.n_head % 2 != 0) {
    throw InputError("n_head: rotary positions need an even head size, not " +
                     std::to_string(c.n_embd / c.n_head));
  }
}

const GptConfig& checked(const GptConfig& config) {
  check_config(config);
  return config;
}

Norm norm_of(Arch arch) { return arch == Arch::gpt2 ? Norm::layer : Norm::rms; }

}  // namespace

Unary mlp_activation(const GptConfig& config) {
  if (config.activation.function) return config.activation;
  return config.arch == Arch::modern ? unary::relu2 : unary::gelu;
}

Gpt::Gpt(const GptConfig& config, Parameters& parameters)
    : config_(checked(config)),
      parameters_(parameters),
      wte_(parameters.add("wte.weight", {config.vocab_size, config.n_embd}, Role::embedding,
                          kDeviation)),
      wpe_(config.arch == Arch::gpt2
               ? &parameters.add("wpe.weight", {config.block_size, config.n_embd}, Role::embedding,
                                 kDeviation)
               : nullptr),
      norm_out_(parameters, "ln_f", norm_of(config.arch), config.n_embd,
                config.arch == Arch::gpt2 && config.bias) {
  bool modern = config.arch == Arch::modern, bias = !modern && config.bias;
  double out_deviation = modern ? 0 : kDeviation / std::sqrt(2.0 * double(config.n_layer));
  for (int64_t i = 0; i < config.n_layer; i++) {
    std::string name = "h." + std::to_string(i);
    parameters.begin_unit(int(i) + 1);
    blocks_.push_back(Block{
        NormLayer(parameters, name + ".ln_1", norm_of(config.arch), config.n_embd, bias),
        Attention(parameters, name + ".attn", config.n_embd, config.n_head, bias, kDeviation,
                  out_deviation),
        NormLayer(parameters, name + ".ln_2", norm_of(config.arch), config.n_embd, bias),
        Mlp(parameters, name + ".mlp", config.n_embd, mlp_activation(config), bias, kDeviation,
            out_deviation),
    });
  }
  parameters.begin_unit(0);
  if (modern)
    head_ = &parameters.add("lm_head.weight", {config.vocab_size, config.n_embd}, Role::head,
                            kDeviation);
}

Var Gpt::hidden(const Tensor& tokens) const {
  check(tokens.shape().rank() == 2 && tokens.cols() <= config_.block_size, [&] {
    return "gpt: tokens " + text(tokens) + " for a block size of " +
           std::to_string(config_.block_size);
  });
  if (config_.arch == Arch::modern && !angles_) {
    const Tensor& table = wte_.var.value();
    angles_ = to(table.device(),
                 rope_angles(config_.block_size, config_.n_embd / config_.n_head, table.dtype()));
  }
  auto branch = [&](auto f, const Var& h) {
    return config_.checkpointing ? checkpoint(f, h) : f(h);
  };

  Var x = embedding(to(wte_.var.value().device(), tokens), wte_.var,
                    wpe_ ? wpe_->var : Var());  // (B, T, C)
  Var h = blocks_[0].norm_attention(x);
  for (size_t i = 0; i < blocks_.size(); i++) {
    const Block& block = blocks_[i];
    const NormLayer& next = i + 1 < blocks_.size() ? blocks_[i + 1].norm_attention : norm_out_;
    parameters_.enter(int(i) + 1);
    Var a = branch([&block, this](const Var& v) { return block.attention(v, angles_); }, h);
    SumAndNorm middle = block.norm_mlp.add(x, a);
    Var m = branch([&block](const Var& v) { return block.mlp(v); }, middle.norm);
    parameters_.leave(int(i) + 1);
    SumAndNorm end = next.add(middle.sum, m);
    x = end.sum;
    h = end.norm;
  }
  return h;
}

Var Gpt::loss(const Tensor& tokens, const Tensor& targets) const {
  parameters_.enter(0);
  Var h = hidden(tokens);
  Var loss = head_cross_entropy(h, head().var, to(h.value().device(), targets), vocabulary());
  parameters_.leave(0);
  return loss;
}

Var Gpt::logits(const Tensor& tokens) const {
  parameters_.enter(0);
  Var logits = linear(hidden(tokens), head().var);
  parameters_.leave(0);
  return logits;
}

double Gpt::flops_per_token(int64_t time) const {
  double width = double(config_.n_embd), layers = double(config_.n_layer);
  double weights = layers * 12 * width * width + double(config_.vocab_size) * width;
  return 6 * weights + 6 * layers * width * double(time);
}

}  // namespace murmur
