// optim/registry.cpp - optimizers.def, expanded.
#include "optim/registry.h"

#include "tensor/nearest.h"

namespace murmur {

// OPTIMIZER(adamw, "..") becomes: std::unique_ptr<Optimizer> make_adamw();
#define OPTIMIZER(name, summary) std::unique_ptr<Optimizer> make_##name();
#include "optim/optimizers.def"
#undef OPTIMIZER

const std::vector<OptimizerEntry>& optimizer_list() {
  static const std::vector<OptimizerEntry> list = {
#define OPTIMIZER(name, summary) {#name, summary, make_##name},
#include "optim/optimizers.def"
#undef OPTIMIZER
  };
  return list;
}

std::unique_ptr<Optimizer> make_optimizer(const std::string& name) {
  return find_named("optimizer", optimizer_list(), name).make();
}

std::vector<Option> all_options(Optimizer& optimizer) {
  std::vector<Option> all = {
      {"lr", &optimizer.learning_rate, "peak learning rate", 0, 1e3},
      {"weight_decay", &optimizer.weight_decay, "decoupled weight decay", 0, 1e3}};
  if (!optimizer.decays_itself()) {
    all.push_back({"cautious_decay", &optimizer.cautious_decay,
                   "decay only weights that the step does not shrink already"});
  }
  for (Option& option : optimizer.options()) all.push_back(std::move(option));
  return all;
}

void configure(Optimizer& optimizer, const std::string& owner,
               const std::map<std::string, std::string>& settings) {
  std::vector<Option> options = all_options(optimizer);
  for (bool forms : {true, false}) {
    for (const auto& [name, text] : settings) {
      bool is_form = false;
      for (const Option& option : options)
        is_form = is_form || (option.name == name && option.chosen);
      if (is_form == forms) set_option(options, owner + ".", name, text);
    }
  }
}

}  // namespace murmur
