// dist/bootstrap.h - which rank of how many this process is, as whoever started it says.
//
// The environment is read in this order; the first contract that is there counts, and it must be
// whole:
//
//   torchrun   RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT
//   Open MPI   OMPI_COMM_WORLD_RANK  .._SIZE  .._LOCAL_RANK  .._LOCAL_SIZE
//   PMI        PMI_RANK PMI_SIZE MPI_LOCALRANKID MPI_LOCALNRANKS
//   Slurm      SLURM_PROCID SLURM_NTASKS SLURM_LOCALID SLURM_NTASKS_PER_NODE SLURM_JOB_NODELIST
#pragma once

#include <exception>
#include <functional>
#include <string>

namespace murmur {

struct Launched {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // among the ranks of this host
  std::string address;                 // of rank 0; "" where nobody says it
  int port = 29500;
  std::string source;  // "torchrun"
  bool found = false;  // false: one process, started by hand
};

using Lookup = std::function<const char*(const char* name)>;

// InputError names a variable that is missing or no number.
Launched launched_by();
Launched launched_by(const Lookup& variable);
bool ignored(int signal);  // by the wish of whoever started this process, as nohup does with SIGHUP
std::string first_host(const std::string& nodes);  // "node[03-07,9],other": "node03"

// The exit code of a run that a signal has stopped, that of a program ended by Ctrl-C.
inline constexpr int kInterruptedCode = 130;
// Prints why this process ends, one line on stderr, and returns its exit code: 2 for an InputError,
// else 1. Of a mistake of the user, which all ranks find, rank 0 speaks first.
int complain(const std::exception& error, int rank, int size);
// Where `murmur launch` asked for it by this variable: a line on stderr for it, with the exit code
// of this rank. mpirun tells nothing of those that others went on without. Returns the code.
inline constexpr const char* kTellsLauncher = "MURMUR_TELLS_LAUNCHER";
int tell_launcher(int code);
// Waits a little. Whoever started the ranks ends them meanwhile, when rank 0 has failed.
void let_rank_0_speak();

}  // namespace murmur
