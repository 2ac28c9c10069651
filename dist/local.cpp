// dist/local.cpp - one rank on its own.
#include "dist/strategy.h"

namespace murmur {
namespace {

class Local final : public Strategy {
 public:
  bool own_weights() const override { return true; }
};

}  // namespace

std::unique_ptr<Strategy> make_local() { return std::make_unique<Local>(); }

}  // namespace murmur
