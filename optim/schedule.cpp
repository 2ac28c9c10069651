// optim/schedule.cpp - warm-up, then one of schedule.def.
#include "optim/schedule.h"

#include <algorithm>
#include <cmath>

#include "tensor/nearest.h"

namespace murmur {
namespace {

// How far through [begin, end] a step is, in [0, 1].
double progress(double step, double begin, double end) {
  return end <= begin ? (step > begin ? 1.0 : 0.0)
                      : std::clamp((step - begin) / (end - begin), 0.0, 1.0);
}

double constant_factor(const Schedule&, int64_t) { return 1; }

double cosine_factor(const Schedule& s, int64_t step) {
  double p = progress(double(step), double(s.warmup), double(s.steps));
  return s.minimum + (1 - s.minimum) * 0.5 * (1 + std::cos(M_PI * p));
}

double stable_decay_factor(const Schedule& s, int64_t step) {
  double begin = std::max(double(s.warmup), double(s.steps) * (1 - s.decay_fraction));
  return 1 - (1 - s.minimum) * progress(double(step), begin, double(s.steps));
}

double after_warmup(const Schedule& s, int64_t step) { return double(step - s.warmup); }
double inverse_sqrt_factor(const Schedule& s, int64_t step) {
  return 1 / std::sqrt(after_warmup(s, step));
}
double inverse_factor(const Schedule& s, int64_t step) { return 1 / after_warmup(s, step); }

}  // namespace

const std::vector<ScheduleEntry>& schedule_list() {
  static const std::vector<ScheduleEntry> list = {
#define SCHEDULE(name, function, summary) {#name, summary, function},
#include "optim/schedule.def"
#undef SCHEDULE
  };
  return list;
}

double Schedule::factor(int64_t step) const {
  const ScheduleEntry& entry = find_named("schedule", schedule_list(), name);
  return step <= warmup ? double(step) / double(warmup) : entry.factor(*this, step);
}

}  // namespace murmur
