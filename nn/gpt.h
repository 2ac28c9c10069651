// nn/gpt.h - the GPT: GPT-2's architecture (Radford et al., 2019), or a modern one.
//
//            positions  norm        queries and keys   MLP     head  biases  projections start at
//   gpt2     learned    layer norm  plain              GELU    tied  yes     N(0, 0.02/sqrt(2L))
//   modern   rotary     RMS norm    RMS norm, rotated  ReLU^2  own   no      0
//
//   x = wte[tokens] (+ wpe)      per layer:  x += attention(norm(x));  x += mlp(norm(x))
//   loss = cross entropy of norm(x) W_head^T
#pragma once

#include <deque>
#include <string>

#include "nn/attention.h"
#include "nn/mlp.h"
#include "nn/norm.h"

namespace murmur {

enum class Arch : uint8_t { gpt2, modern };

struct GptConfig {
  int64_t n_layer = 4;
  int64_t n_head = 4;
  int64_t n_embd = 128;  // C, the width
  int64_t block_size = 64;
  int64_t vocab_size = 256;  // rows of the embedding and of the head
  Arch arch = Arch::gpt2;
  bool bias = true;            // gpt2 only
  bool checkpointing = false;  // compute activations of each branch again in backward
  // Tokens there are; rows beyond are padding, which suits matrix units and takes no part in the
  // loss. 0: as many as rows.
  int64_t true_vocab_size = 0;
  Unary activation = {};  // of the MLP; none: GELU in gpt2, ReLU^2 in modern
};

Unary mlp_activation(const GptConfig& config);

class Gpt {
 public:
  // Declares its parameters; the caller allocates them (nn/parameter.h) before the first call.
  Gpt(const GptConfig& config, Parameters& parameters);

  // tokens, targets: (B, T) int32, T at most block_size.
  Var loss(const Tensor& tokens, const Tensor& targets) const;  // mean, in nats per token
  Var logits(const Tensor& tokens) const;                       // (B, T, V), with padding

  const GptConfig& config() const { return config_; }
  int64_t vocabulary() const {  // tokens the model knows, without padding
    return config_.true_vocab_size ? config_.true_vocab_size : config_.vocab_size;
  }
  // Multiply-adds of one training token, forward and backward, counted as two operations each:
  // six per matrix weight, attention over half of T (causal).
  double flops_per_token(int64_t time) const;

 private:
  struct Block {
    NormLayer norm_attention;
    Attention attention;
    NormLayer norm_mlp;
    Mlp mlp;
  };

  Var hidden(const Tensor& tokens) const;  // (B, T, C), after the last norm
  const Parameter& head() const { return head_ ? *head_ : wte_; }

  GptConfig config_;
  const Parameters& parameters_;
  const Parameter& wte_;            // (V, C)
  const Parameter* wpe_ = nullptr;  // (T, C)
  std::deque<Block> blocks_;
  NormLayer norm_out_;
  const Parameter* head_ = nullptr;  // (V, C); the embedding itself where tied
  mutable Tensor angles_;            // (T, D), made at the first call
};

}  // namespace murmur
