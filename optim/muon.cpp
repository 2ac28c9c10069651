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
    return {{"momentum", &momentum_, "mu", 0, 1},
            {"nesterov", &nesterov_, "look ahead by one step"},
            {"ns_steps", &ns_steps_, "Newton-Schulz iterations", 1, 50},
            {"scale", &scale_, "step length by shape", 0, 0, scales}};
  }
  bool matrices_only() const override { return true; }
  std::vector<StateShape> state(const Bank& bank) const override {
    return {{"momentum", {bank.count, bank.rows, bank.cols}}};
  }
  void direction(const Bank& bank, const Tensor& gradient, State& state, int64_t,
                 Tensor& d) const override {
    const Engine& e = engine(gradient.device());
    Tensor& m = state["momentum"];
    e.lerp(1 - momentum_, gradient, m);
    Tensor u(m.shape(), m.dtype(), m.device());
    e.scale(nesterov_ ? momentum_ : 1, m, {u});
    if (nesterov_) e.scale(1 - momentum_, gradient, {u, true});
    newton_schulz(u, int(ns_steps_));
    e.scale(shape_scale(scale_, bank.rows, bank.cols), u, {d});
  }

 private:
  double momentum_ = 0.95;
  bool nesterov_ = true;
  int64_t ns_steps_ = 5;
  std::string scale_ = "original";
};

}  // namespace

std::unique_ptr<Optimizer> make_muon() { return std::make_unique<Muon>(); }

}  // namespace murmur
