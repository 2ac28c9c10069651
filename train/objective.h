// train/objective.h - smooth functions of a matrix, another one on every node: f = mean of f_i.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace murmur {

struct Landscape {
  int64_t rows = 16, cols = 8;  // of X
  int64_t nodes = 8;
  int64_t seed = 0;
  double condition = 10;     // of the Hessian of a node's quadratic
  double heterogeneity = 1;  // 0: the same function on all nodes
};

// Matrices are (rows, cols), fp64, on the CPU.
class Objective {
 public:
  explicit Objective(int64_t nodes) : nodes_(nodes) {}
  virtual ~Objective() = default;
  virtual double value(int64_t node, const Tensor& x) const = 0;
  virtual void gradient(int64_t node, const Tensor& x, Tensor& g) const = 0;
  virtual std::optional<double> least() const { return {}; }  // of the mean, where it is known

  double mean_value(const Tensor& x) const;
  Tensor mean_gradient(const Tensor& x) const;

 private:
  int64_t nodes_;
};

// The sum of the singular values: what Muon's rates are about, being the dual of the spectral norm.
double nuclear_norm(const Tensor& x);

struct ObjectiveEntry {
  std::string name, summary;
  std::unique_ptr<Objective> (*make)(const Landscape&);
};
const std::vector<ObjectiveEntry>& objective_list();
// InputError names the nearest.
std::unique_ptr<Objective> make_objective(const std::string& name, const Landscape& landscape);

}  // namespace murmur
