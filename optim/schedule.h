// optim/schedule.h - the learning rate over a run, as a factor of its peak.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace murmur {

struct Schedule {
  std::string name = "cosine";
  int64_t steps = 1;            // of the whole run
  int64_t warmup = 0;           // linear: step 1 has 1/warmup of the peak
  double minimum = 0.1;         // at the end, relative to the peak
  double decay_fraction = 0.4;  // wsd: share of the steps that decay

  // `step` counts from 1. Always in [0, 1]. InputError for a name that is not on the list.
  double factor(int64_t step) const;
};

struct ScheduleEntry {
  std::string name, summary;
  double (*factor)(const Schedule&, int64_t step);
};
const std::vector<ScheduleEntry>& schedule_list();

}  // namespace murmur
