// tensor/cpu/parallel.h - loops over pieces whose borders depend on the problem alone.
//
// Which thread runs a piece is left to OpenMP; what a piece computes is not. So the number of
// threads changes the time and never the bits.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>

namespace murmur {

// Runs parts of a loop and keeps the first exception for the caller: one that leaves a parallel
// region ends the program.
class FirstError {
 public:
  template <class F>
  void run(const F& part) {
    try {
      part();
    } catch (...) {
#pragma omp critical(murmur_first_error)
      if (!error_) error_ = std::current_exception();
    }
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::exception_ptr error_;
};

// Calls f(begin, end) for pieces of at most `grain` items. Neighbouring pieces go to one thread, so
// that kernels of equal partition find their data in the same core's cache.
template <class F>
void parallel_for(int64_t count, int64_t grain, const F& f) {
  int64_t pieces = (count + grain - 1) / grain;
  if (pieces <= 1) {
    if (count > 0) f(int64_t(0), count);
    return;
  }
  FirstError error;
#pragma omp parallel for schedule(static)
  for (int64_t piece = 0; piece < pieces; piece++)
    error.run([&] { f(piece * grain, std::min(count, (piece + 1) * grain)); });
  error.rethrow();
}

// Calls f(task) for tasks of uneven length: whoever is free takes the next one.
template <class F>
void parallel_tasks(int64_t tasks, const F& f) {
  if (tasks == 1) return f(int64_t(0));
  FirstError error;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t task = 0; task < tasks; task++) error.run([&] { f(task); });
  error.rethrow();
}

// Items per piece such that a piece moves about 64 KiB and there are at most 256 pieces.
inline int64_t grain_for(int64_t count, int64_t bytes_per_item) {
  int64_t by_size = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, bytes_per_item));
  return std::max(by_size, (count + 255) / 256);
}

}  // namespace murmur
