// dist/strategy.h - what nodes do together around an update. A strategy knows no formula of an
// optimizer, and an optimizer knows no rank: any of one goes with any of the other.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/parameter.h"

namespace murmur {

class Strategy {
 public:
  virtual ~Strategy() = default;
  // Between backward and the update: the gradients, one flat buffer, may change.
  virtual void before_update(Parameters& parameters) = 0;
  // After the update: the parameters, one flat buffer, may change.
  virtual void after_update(Parameters& parameters) = 0;
};

struct StrategyEntry {
  std::string name, summary;
  std::unique_ptr<Strategy> (*make)();
};

const std::vector<StrategyEntry>& strategy_list();
std::unique_ptr<Strategy> make_strategy(const std::string& name);  // InputError names the nearest

struct TransportEntry {
  std::string name, summary;
};
const std::vector<TransportEntry>& transport_list();

}  // namespace murmur
