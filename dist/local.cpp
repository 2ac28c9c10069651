// dist/local.cpp - one node on its own.
#include "dist/strategy.h"

namespace murmur {
namespace {

class Local final : public Strategy {
 public:
  void before_update(Parameters&) override {}
  void after_update(Parameters&) override {}
};

}  // namespace

std::unique_ptr<Strategy> make_local() { return std::make_unique<Local>(); }

}  // namespace murmur
