// dist/transport.h - what carries messages. A transport is one file, dist/NAME.cpp with
// run_NAME(), and one line in dist/transports.def.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "dist/communicator.h"

namespace murmur {

struct World {
  int64_t nodes = 0;      // 0: as many as whoever started the processes says
  double deadline = 120;  // seconds a rank waits for another
  Device device = Device::cpu;
};

// Runs `work` once for every rank this process holds: on threads of their own, or once. Where one
// rank throws, the others end too, and the first exception is thrown on.
using RunRanks = void (*)(const World& world, const std::function<void(Communicator&)>& work);

struct TransportEntry {
  std::string name;
  bool processes;  // started by somebody else, one a rank
  std::string summary;
  RunRanks run;
};

const std::vector<TransportEntry>& transport_list();
void run_ranks(const std::string& transport, const World& world,
               const std::function<void(Communicator&)>& work);  // InputError names the nearest

// The one that fits how this process was started, and how many ranks there are to be.
std::string usual_transport(int64_t nodes);
bool are_processes(const std::string& transport);  // its ranks
// InputError where this is one of several processes that were started as ranks, and each of them
// would be a whole run.
void refuse_copies(const std::string& transport);

}  // namespace murmur
