// dist/bootstrap.cpp - the contracts of those who start processes.
#include "dist/bootstrap.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "tensor/check.h"

namespace murmur {
namespace {

class Contract {
 public:
  Contract(const Lookup& variable, std::string source)
      : variable_(variable), source_(std::move(source)) {}

  bool has(const char* name) const { return variable_(name) != nullptr; }
  std::string text(const char* name) const {
    if (const char* value = variable_(name)) return value;
    throw InputError(
        fmt::format("{}: is not set, though other variables of {} are; start all ranks with "
                    "{}, or unset the others",
                    name, source_, source_));
  }
  int number(const char* name) const {
    std::string value = text(name);
    int number = -1;
    auto [end, problem] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (problem == std::errc() && end == value.data() + value.size() && number >= 0) return number;
    throw InputError(fmt::format("{}: '{}' is not a number from 0 up; {} sets it, or unset it",
                                 name, value, source_));
  }
  // A rank and how many there are.
  void place(const char* which, const char* of, int& rank, int& size) const {
    rank = number(which);
    size = number(of);
    if (rank < size) return;
    throw InputError(
        fmt::format("{}: {} is not below {}={}; ranks count from 0", which, rank, of, size));
  }
  Launched launched(Launched l) const {
    l.source = source_;
    l.found = true;
    if (has("MASTER_ADDR")) l.address = text("MASTER_ADDR");
    if (has("MASTER_PORT")) l.port = number("MASTER_PORT");
    if (l.address.empty() && l.local_size == l.size) l.address = "127.0.0.1";
    return l;
  }

 private:
  const Lookup& variable_;
  std::string source_;
};

}  // namespace

std::string first_host(const std::string& nodes) {
  std::string host;
  for (size_t i = 0; i < nodes.size() && nodes[i] != ','; i++) {
    if (nodes[i] != '[') {
      host += nodes[i];
      continue;
    }
    size_t end = nodes.find(']', i), first = nodes.find_first_of(",-]", i);
    if (end == nodes.npos)
      throw InputError(fmt::format("SLURM_JOB_NODELIST: '{}' has no ']'", nodes));
    host += nodes.substr(i + 1, first - i - 1);
    i = end;
  }
  return host;
}

Launched launched_by(const Lookup& variable) {
  Launched l;
  Contract torchrun(variable, "torchrun"), open_mpi(variable, "Open MPI"), pmi(variable, "PMI"),
      slurm(variable, "Slurm");
  if (torchrun.has("RANK") || torchrun.has("WORLD_SIZE")) {
    torchrun.place("RANK", "WORLD_SIZE", l.rank, l.size);
    torchrun.place("LOCAL_RANK", "LOCAL_WORLD_SIZE", l.local_rank, l.local_size);
    l.address = torchrun.text("MASTER_ADDR");
    return torchrun.launched(l);
  }
  if (open_mpi.has("OMPI_COMM_WORLD_RANK") || open_mpi.has("OMPI_COMM_WORLD_SIZE")) {
    open_mpi.place("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", l.rank, l.size);
    open_mpi.place("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", l.local_rank,
                   l.local_size);
    return open_mpi.launched(l);
  }
  if (pmi.has("PMI_RANK") || pmi.has("PMI_SIZE")) {
    pmi.place("PMI_RANK", "PMI_SIZE", l.rank, l.size);
    l.local_rank = l.rank;  // one host, where nothing else is said
    l.local_size = l.size;
    if (pmi.has("MPI_LOCALRANKID") || pmi.has("MPI_LOCALNRANKS"))
      pmi.place("MPI_LOCALRANKID", "MPI_LOCALNRANKS", l.local_rank, l.local_size);
    return pmi.launched(l);
  }
  // A batch script sees SLURM_PROCID=0 and the job's SLURM_NTASKS too; srun's processes are a step.
  if (slurm.has("SLURM_STEP_ID") && (slurm.has("SLURM_PROCID") || slurm.has("SLURM_NTASKS"))) {
    slurm.place("SLURM_PROCID", "SLURM_NTASKS", l.rank, l.size);
    l.local_rank = slurm.number("SLURM_LOCALID");
    // Set only where srun was asked for a number per node; else they are spread evenly.
    int hosts = slurm.has("SLURM_STEP_NUM_NODES") ? slurm.number("SLURM_STEP_NUM_NODES") : 1;
    l.local_size = slurm.has("SLURM_NTASKS_PER_NODE") ? slurm.number("SLURM_NTASKS_PER_NODE")
                                                      : (l.size + hosts - 1) / std::max(1, hosts);
    l.local_size = std::max(l.local_size, l.local_rank + 1);
    l.address = first_host(slurm.text("SLURM_JOB_NODELIST"));
    return slurm.launched(l);
  }
  return l;
}

bool ignored(int signal) {
  struct sigaction action {};
  return sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

Launched launched_by() {
  return launched_by([](const char* name) -> const char* { return std::getenv(name); });
}

void let_rank_0_speak() {
  signal(SIGTERM, SIG_DFL);  // mpirun sends it one second after the first has failed
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
}

int complain(const std::exception& error, int rank, int size) {
  bool input = dynamic_cast<const InputError*>(&error) != nullptr;
  if (input && rank > 0) let_rank_0_speak();
  bool named = std::strncmp(error.what(), "rank ", 5) == 0 || size == 1 || (input && rank == 0);
  // One piece, so that lines of several processes do not mix.
  std::string line = named ? fmt::format("murmur: {}\n", error.what())
                           : fmt::format("murmur: rank {}: {}\n", rank, error.what());
  std::fflush(stdout);
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
  return tell_launcher(input ? 2 : 1);
}

int tell_launcher(int code) {
  if (std::getenv(kTellsLauncher)) fmt::print(stderr, "murmur: ended with {}\n", code);
  return code;
}

}  // namespace murmur
