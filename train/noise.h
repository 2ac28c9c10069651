// train/noise.h - noise on gradients, with tails as heavy as one likes. All of it is centred, and a
// pure function of seed, node and step.
#pragma once

#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace murmur {

struct NoiseEntry {
  std::string name, summary;
  double most;  // the largest index; 0: it has none
  // One number of scale 1 from two uniform ones in (0, 1).
  double (*draw)(double u, double v, double index);
};
const std::vector<NoiseEntry>& noise_list();

class Noise {
 public:
  // "gaussian", "student_t:1.5"; InputError where that is no noise.
  Noise(const std::string& text, double scale);
  // g <- g + noise, entry by entry; g: fp64 on the CPU.
  void add(int64_t seed, int64_t node, int64_t step, Tensor& g) const;
  // a in (1, 2]: moments below a are finite, and at 2 the variance itself (but for student_t:2).
  double tail_index() const;

 private:
  const NoiseEntry* entry_;
  double index_ = 0, scale_;
};

}  // namespace murmur
