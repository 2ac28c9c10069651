// The same run on any number of ranks, whatever they divide.
#include "tests/dist/ranks.h"

using namespace murmur;

namespace {

const std::vector<std::string> kExact = {"all_reduce", "sharded", "fsdp"};

}  // namespace

TEST_CASE("any strategy on any number of ranks trains the model one rank trains") {
  for (const char* optimizer : {"adamw", "muon", "normuon"}) {
    Experiment x(optimizer);
    Outcome alone = run(x, 1, "self");
    for (const std::string& strategy : kExact) {
      for (int ranks : {1, 2, 3, 4, 8}) {
        CAPTURE(optimizer);
        CAPTURE(strategy);
        CAPTURE(ranks);
        x.strategy = strategy;
        Outcome together = run(x, ranks);
        CHECK(distance(alone, together) < 1e-12);
        for (size_t i = 0; i < alone.losses.size(); i++)
          CHECK(std::abs(together.losses[i] - alone.losses[i]) < 1e-11);
      }
    }
  }
}
