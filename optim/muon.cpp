// optim/muon.cpp - momentum, orthogonalised (Jordan et al., 2024).
//
//   m <- mu m + (1 - mu) g            u = (1 - mu) g + mu m  (m without nesterov)
//   ema off: m <- mu m + g            u = g + mu m
//   d = scale(shape) orthogonalize(u)
//
// The two momenta differ by a constant factor, which orthogonalisation does not see. Forms:
//
//   jordan     the original (github.com/KellerJordan/Muon)
//   moonlight  steps as long as AdamW's (Liu et al., arXiv 2502.16982)
//   torch      torch.optim.Muon's defaults
//   dion       as in the Dion repository: Polar Express, RMS-to-RMS scale, no look-ahead
//   plain      no look-ahead, no scale: what DeMuon does at each node (arXiv 2510.01377)
//
// Matrices only: router.cpp sends embeddings, heads and vectors elsewhere.
#include "optim/optimizer.h"
#include "optim/orthogonalize.h"
#include "optim/scale.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

class Muon final : public Optimizer {
 public:
  Muon() { use_form(); }

  std::vector<Option> options() override {
    std::vector<Option> all = {
        {"form",
         &form_,
         "sets the others to what a publication uses",
         0,
         0,
         {"jordan", "moonlight", "torch", "dion", "plain"},
         [this] { use_form(); }},
        {"momentum", &momentum_, "mu", 0, 1},
        {"nesterov", &nesterov_, "look ahead by one step"},
        {"ema", &ema_, "momentum is a mean of gradients, not a sum"},
        {"scale", &scale_, "step length by shape", 0, 0, shape_scale_names()},
        {"qk_clip", &qk_clip_, "largest attention score before queries and keys shrink; 0: any", 0,
         1e6}};
    for (Option& option : orthogonalization_.options()) all.push_back(std::move(option));
    return all;
  }
  bool matrices_only() const override { return true; }
  double largest_score() const override { return qk_clip_; }
  std::vector<StateShape> state(const Bank& bank) const override {
    return {{"momentum", {bank.count, bank.rows, bank.cols}, 0, true}};
  }
  DType begun_type(const Tensor& g) const override { return orthogonalization_.type(g); }
  Tensor begin(const Question& q) const override {
    Tensor& m = q.state["momentum"];
    Tensor u(m.shape(), orthogonalization_.type(m), m.device());
    double fresh = ema_ ? 1 - momentum_ : 1;
    ops::momentum(q.gradient, m, u, momentum_, fresh, nesterov_ ? momentum_ : 1,
                  nesterov_ ? fresh : 0);
    return u;
  }
  void direction(const Question& q, Tensor& d) const override {
    Tensor u = q.gradient;
    orthogonalize(u, orthogonalization_, shape_scale(scale_, q.bank.rows, q.bank.cols), d);
  }

 private:
  void use_form() {
    struct Form {
      const char *name, *scale, *method;
      double rate, decay;
      bool nesterov, ema;
    };
    static const Form forms[] = {
        {"jordan", "original", "jordan5", 0.02, 0, true, true},
        {"moonlight", "match_rms_adamw", "jordan5", 1e-3, 0.1, true, false},
        {"torch", "original", "jordan5", 1e-3, 0.1, true, true},
        {"dion", "spectral", "polar_express", 0.01, 0.01, false, false},
        {"plain", "none", "jordan5", 0.02, 0, false, true},
    };
    for (const Form& form : forms) {
      if (form_ != form.name) continue;
      learning_rate = form.rate;
      weight_decay = form.decay;
      nesterov_ = form.nesterov;
      ema_ = form.ema;
      scale_ = form.scale;
      orthogonalization_.method = form.method;
    }
  }

  std::string form_ = "jordan", scale_;
  double momentum_ = 0.95, qk_clip_ = 0;
  bool nesterov_ = true, ema_ = true;
  Orthogonalization orthogonalization_;
};

}  // namespace

std::unique_ptr<Optimizer> make_muon() { return std::make_unique<Muon>(); }

}  // namespace murmur
