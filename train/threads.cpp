// train/threads.cpp - more threads than cores are allowed, as tests want them, but not any number.
#include "train/threads.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>

#include "tensor/check.h"

namespace murmur {

void use_threads(int64_t wanted) {
  constexpr int64_t kAlways = 64, kPerCore = 8;
  const int64_t cores = omp_get_num_procs(), most = std::max(kAlways, kPerCore * cores);
  if (wanted > most) {
    throw InputError(fmt::format(
        "threads: {} on {} core{} would wait for each other most of the time; use at most {}, or 0 "
        "for all cores",
        wanted, cores, cores == 1 ? "" : "s", most));
  }
  if (wanted > 0) omp_set_num_threads(int(wanted));
}

}  // namespace murmur
