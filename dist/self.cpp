// dist/self.cpp - a world of one rank.
#include <fmt/format.h>

#include "dist/transport.h"

namespace murmur {
namespace {

class Self final : public Communicator {
 public:
  Self() : Communicator(0, 1, 0) {}

 private:
  struct Nothing final : Pending {
    bool poll() override { return true; }
    std::vector<int> wait_until(std::chrono::steady_clock::time_point,
                                const std::set<int>&) override {
      return {};
    }
  };
  std::unique_ptr<Pending> post(const std::vector<Message>&, const std::vector<Message>&) override {
    return std::make_unique<Nothing>();  // there is no peer
  }
};

}  // namespace

void run_self(const World& world, const std::function<void(Communicator&)>& work) {
  if (world.nodes > 1)
    throw InputError(
        fmt::format("nodes: transport self has one rank, not {}; use threads", world.nodes));
  Self self;
  work(self);
}

}  // namespace murmur
