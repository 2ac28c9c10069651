// dist/store.h - where ranks meet before they can talk: rank 0 listens at a TCP port, the others
// come, and all leave with what rank 0 brought.
//
//   std::string id = exchange_from_zero({rank, size, "10.0.0.1", 29500, 60}, mine);
#pragma once

#include <string>

namespace murmur {

struct Rendezvous {
  int rank, size;
  std::string address;  // a name, or an address of IPv4 or IPv6, at which rank 0 is found
  int port;
  double deadline;  // seconds
};

// Rank 0's `value`, on every rank; those of the others are not looked at. Nobody has it before all
// have come. Error at the deadline, with the ranks that are missing, and at once where another
// world or a stranger answers at that port. Connections that are not a rank's are dropped.
std::string exchange_from_zero(const Rendezvous& at, const std::string& value);

}  // namespace murmur
