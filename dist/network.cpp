// dist/network.cpp - networks.def, expanded; one line of arithmetic.
#include "dist/network.h"

#include "tensor/nearest.h"

namespace murmur {

const std::vector<Network>& network_list() {
  static const std::vector<Network> list = {
#define NETWORK(name, latency_us, gigabytes_per_s, summary) \
  {#name, latency_us, gigabytes_per_s, summary},
#include "dist/networks.def"
#undef NETWORK
  };
  return list;
}

const Network& find_network(const std::string& name) {
  return find_named("networks", network_list(), name);
}

double milliseconds(const Network& network, double rounds, double bytes) {
  return network.latency_us * rounds * 1e-3 + bytes / network.gigabytes_per_s * 1e-6;
}

}  // namespace murmur
