// dist/transport.cpp - transports.def, expanded.
#include "dist/transport.h"

#include "tensor/nearest.h"

namespace murmur {

#define TRANSPORT(name, summary) \
  void run_##name(const World& world, const std::function<void(Communicator&)>& work);
#include "dist/transports.def"
#undef TRANSPORT

const std::vector<TransportEntry>& transport_list() {
  static const std::vector<TransportEntry> list = {
#define TRANSPORT(name, summary) {#name, summary, run_##name},
#include "dist/transports.def"
#undef TRANSPORT
  };
  return list;
}

void run_ranks(const std::string& transport, const World& world,
               const std::function<void(Communicator&)>& work) {
  return find_named("transport", transport_list(), transport).run(world, work);
}

}  // namespace murmur
