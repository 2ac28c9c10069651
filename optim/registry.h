// optim/registry.h - optimizers by name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "optim/optimizer.h"

namespace murmur {

struct OptimizerEntry {
  std::string name, summary;
  std::unique_ptr<Optimizer> (*make)();
};

const std::vector<OptimizerEntry>& optimizer_list();
// InputError naming the nearest known one.
std::unique_ptr<Optimizer> make_optimizer(const std::string& name);

}  // namespace murmur
