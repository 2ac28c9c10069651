// dist/strategy.cpp - strategies.def and transports.def, expanded.
#include "dist/strategy.h"

#include "tensor/nearest.h"

namespace murmur {

#define STRATEGY(name, summary) std::unique_ptr<Strategy> make_##name();
#include "dist/strategies.def"
#undef STRATEGY

const std::vector<StrategyEntry>& strategy_list() {
  static const std::vector<StrategyEntry> list = {
#define STRATEGY(name, summary) {#name, summary, make_##name},
#include "dist/strategies.def"
#undef STRATEGY
  };
  return list;
}

std::unique_ptr<Strategy> make_strategy(const std::string& name) {
  std::vector<std::string> names;
  for (const StrategyEntry& entry : strategy_list()) {
    if (entry.name == name) return entry.make();
    names.push_back(entry.name);
  }
  throw InputError("strategy: there is no '" + name + "'; did you mean '" + nearest(name, names) +
                   "'?");
}

const std::vector<TransportEntry>& transport_list() {
  static const std::vector<TransportEntry> list = {
#define TRANSPORT(name, summary) {#name, summary},
#include "dist/transports.def"
#undef TRANSPORT
  };
  return list;
}

}  // namespace murmur
