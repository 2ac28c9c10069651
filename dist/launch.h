// dist/launch.h - `murmur launch`: starts the processes of a run, so that nobody needs to know how.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace murmur {

// Starts `ranks` processes of this program with `args`: by itself where they talk by nccl, else by
// mpirun, perhaps on the hosts that the file `hosts` names. The exit code: that of the first rank
// that failed, or 1 after one that a signal has ended, which is said in one line. With `survive` the
// others are left to go on without it, and the exit code is theirs.
//
// A signal that asks a run to save and stop, or to save (train/interrupt.h), goes on to all ranks.
int launch(int64_t ranks, const std::string& transport, const std::string& hosts, bool survive,
           std::vector<std::string> args);

}  // namespace murmur
