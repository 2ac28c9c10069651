// optim/muon.cpp - momentum, orthogonalised (Jordan et al., 2024).
//
//   m <- mu m + (1 - mu) g        u = (1 - mu) g + mu m  (m without nesterov)
//   d = scale(shape) * newton_schulz(u)
//
// Matrices only: router.cpp sends embeddings, heads and vectors elsewhere.
#include "optim/optimizer.h"
#include "optim/orthogonalize.h"
#include "optim/scale.h"

namespace murmur {
namespace {

class Muon final : public Optimizer {
 public:
  Muon() { learning_rate = 0.02; }

  std::vector<Option> options() override {
    std::vector<std::string> scales;
    for (const ShapeScale& s : shape_scales()) scales.push_back(s.name);
    return {
        {"momentum", &momentum_, "mu", 0, 1},
        {"nesterov", &nesterov_, "look ahead by one step"},
        {"ns_steps", &ns_steps_, "Newton-Schulz iterations", 1, 50},
        {"ns_form",
         &ns_form_,
         "gram: fewer operations from 2:1 on, larger errors",
         0,
         0,
         {"standard", "gram"}},
        {"ns_dtype", &ns_dtype_, "what Newton-Schulz computes in", 0, 0, {"auto", "fp32", "bf16"}},
        {"scale", &scale_, "step length by shape", 0, 0, scales}};
  }
  bool matrices_only() const override { return true; }
  std::vector<StateShape> state(const Bank& bank) const override {
    return {{"momentum", {bank.count, bank.rows, bank.cols}}};
  }
  void direction(const Bank& bank, const Tensor& gradient, State& state, const Tensor&,
                 Tensor& d) const override {
    Tensor& m = state["momentum"];
    Tensor u(m.shape(), orthogonal_type(ns_dtype_, m), m.device());
    engine(m.device())
        .momentum(gradient, m, u, momentum_, 1 - momentum_, nesterov_ ? momentum_ : 1,
                  nesterov_ ? 1 - momentum_ : 0);
    bool gram =
        ns_form_ == "gram" && std::max(bank.rows, bank.cols) >= 2 * std::min(bank.rows, bank.cols);
    newton_schulz(u, {int(ns_steps_), gram}, shape_scale(scale_, bank.rows, bank.cols), d);
  }

 private:
  double momentum_ = 0.95;
  bool nesterov_ = true;
  int64_t ns_steps_ = 5;
  std::string ns_form_ = "standard", ns_dtype_ = "auto";
  std::string scale_ = "original";
};

}  // namespace

std::unique_ptr<Optimizer> make_muon() { return std::make_unique<Muon>(); }

}  // namespace murmur
