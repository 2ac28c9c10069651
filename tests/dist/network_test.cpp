// Known answers of the alpha-beta model.
#include "dist/network.h"

#include <doctest/doctest.h>

#include <set>

#include "tensor/check.h"

using namespace murmur;

TEST_CASE("an exchange takes its rounds' latencies and its bytes' time") {
  Network slow{"slow", 100, 0.5, ""};
  CHECK(milliseconds(slow, 0, 0) == 0);
  CHECK(milliseconds(slow, 10, 0) == doctest::Approx(1));
  CHECK(milliseconds(slow, 0, 5e8) == doctest::Approx(1000));
  CHECK(milliseconds(slow, 10, 5e8) == doctest::Approx(1001));
  // The matrices of GPT-2 small, all-reduced in bf16 by 8 ranks: 2 x 7/8 x 2 bytes each.
  double bytes = 2 * 0.875 * 2 * 84.9e6;
  CHECK(milliseconds(find_network("nvlink4"), 0, bytes) == doctest::Approx(0.83).epsilon(0.01));
  CHECK(milliseconds(find_network("ethernet_25g"), 0, bytes) == doctest::Approx(106).epsilon(0.01));
}

TEST_CASE("networks are listed once each, with what they are, and found by name") {
  std::set<std::string> names;
  for (const Network& network : network_list()) {
    CAPTURE(network.name);
    CHECK(names.insert(network.name).second);
    CHECK(network.latency_us > 0);
    CHECK(network.gigabytes_per_s > 0);
    CHECK(network.summary.find("not measured") != std::string::npos);
    CHECK(find_network(network.name).summary == network.summary);
  }
  CHECK_THROWS_WITH_AS(find_network("nvlnk4"),
                       "networks: there is no 'nvlnk4'; did you mean 'nvlink4'?", InputError);
}
