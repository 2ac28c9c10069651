// dist/network.h - what an exchange costs on a network that is not here: the alpha-beta model.
//
//   t = alpha rounds + bytes / beta
//
// bytes: sent by one rank; alpha: microseconds a round; beta: GB/s a rank can send. The number of
// messages of a round costs nothing, and neither do other users of the network.
#pragma once

#include <string>
#include <vector>

namespace murmur {

struct Network {
  std::string name;
  double latency_us, gigabytes_per_s;
  std::string summary;
};

const std::vector<Network>& network_list();            // dist/networks.def
const Network& find_network(const std::string& name);  // InputError names the nearest

double milliseconds(const Network& network, double rounds, double bytes);

}  // namespace murmur
