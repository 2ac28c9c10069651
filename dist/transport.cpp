// dist/transport.cpp - transports.def, expanded.
#include "dist/transport.h"

#include <fmt/format.h>

#include "dist/bootstrap.h"
#include "tensor/nearest.h"

namespace murmur {

#define TRANSPORT(name, processes, summary) \
  void run_##name(const World& world, const std::function<void(Communicator&)>& work);
#include "dist/transports.def"
#undef TRANSPORT

const std::vector<TransportEntry>& transport_list() {
  static const std::vector<TransportEntry> list = {
#define TRANSPORT(name, processes, summary) {#name, processes, summary, run_##name},
#include "dist/transports.def"
#undef TRANSPORT
  };
  return list;
}

void run_ranks(const std::string& transport, const World& world,
               const std::function<void(Communicator&)>& work) {
  return find_named("transport", transport_list(), transport).run(world, work);
}

std::string usual_transport(int64_t nodes) {
  Launched launched = launched_by();
  if (launched.size > 1) return launched.source == "torchrun" ? "nccl" : "mpi";
  return nodes > 1 ? "threads" : "self";
}

bool are_processes(const std::string& transport) {
  return find_named("transport", transport_list(), transport).processes;
}

void refuse_copies(const std::string& transport) {
  Launched launched = launched_by();
  if (launched.size == 1 || are_processes(transport)) return;
  throw InputError(fmt::format(
      "transport: {} is one process, and {} has started {}; leave --transport out, or start one",
      transport, launched.source, launched.size));
}

}  // namespace murmur
