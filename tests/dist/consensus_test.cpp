// Averaging as it goes, beside what its theory promises.
#include "dist/consensus.h"

#include <doctest/doctest.h>

#include <cmath>

#include "dist/topology_report.h"
#include "tensor/check.h"

using namespace murmur;

TEST_CASE("gossip leaves at most rho^k, and exact schedules nothing") {
  for (const TopologyEntry& entry : topology_list()) {
    if (entry.name == "edges") continue;
    CAPTURE(entry.name);
    Topology t = make_topology({.name = entry.name}, 8);
    TopologyReport r = report(t);
    std::vector<double> left = gossip_errors(t, 5 * t.rounds());
    REQUIRE(left.size() == size_t(5 * t.rounds() + 1));
    CHECK(left[0] == 1);
    for (int period = 0; period <= 5; period++)
      CHECK(left[period * t.rounds()] <= std::pow(r.rho, period) + 1e-14);
    if (r.exact) CHECK(left[t.rounds()] < 1e-14);
    CHECK(left == gossip_errors(t, 5 * t.rounds()));  // the same start every time
  }
}

TEST_CASE("push-sum finds the mean where gossip finds another number") {
  Topology star = make_topology({.name = "star", .weights = "column"}, 6);
  CHECK(gossip_errors(star, 200, true).back() < 1e-13);
  CHECK(gossip_errors(star, 200, false).back() > 0.1);
}

TEST_CASE("Chebyshev's acceleration leaves at most 1 / T_k(1 / rho)") {
  for (const char* name : {"ring", "path", "star", "torus"}) {
    CAPTURE(name);
    Topology t = make_topology({.name = name}, 16);
    double rho = report(t).rho;
    std::vector<double> left = chebyshev_errors(t, rho, 60);
    REQUIRE(left.size() == 61);
    for (int k = 0; k <= 60; k++)
      CHECK(left[k] <= 1 / std::cosh(k * std::acosh(1 / rho)) * (1 + 1e-9) + 1e-13);
    CHECK(left[40] < 0.1 * gossip_errors(t, 40)[40]);
  }
  CHECK(chebyshev_errors(make_topology({}, 8), 0.8, 0).size() == 1);
  CHECK_THROWS_AS(chebyshev_errors(make_topology({.name = "base2"}, 8), 0.5, 3), Error);
}

TEST_CASE("one node agrees with itself") {
  CHECK(gossip_errors(make_topology({}, 1), 2) == std::vector<double>{0, 0, 0});
}
