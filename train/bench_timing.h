// train/bench_timing.h - a clock, and medians.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

namespace murmur {

inline double now_ms() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Runs f until so many ms have passed, at least five times, and gives the median time of a call.
template <class F>
double time_of(const F& f, double at_least_ms = 50) {
  f();
  std::vector<double> times;
  for (double begin = now_ms(); now_ms() - begin < at_least_ms || times.size() < 5;) {
    double start = now_ms();
    f();
    times.push_back(now_ms() - start);
  }
  return median(times);
}

}  // namespace murmur
