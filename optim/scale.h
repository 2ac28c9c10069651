// optim/scale.h - how long a step an orthogonal direction makes, by the shape (m, n) = (out, in).
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tensor/nearest.h"

namespace murmur {

struct ShapeScale {
  std::string name, summary;
  double (*factor)(double m, double n);
};

inline const std::vector<ShapeScale>& shape_scales() {
  static const std::vector<ShapeScale> list = {
      {"none", "1", [](double, double) { return 1.0; }},
      {"original", "sqrt(max(1, m/n)) (Jordan)",
       [](double m, double n) { return std::sqrt(std::max(1.0, m / n)); }},
      {"spectral", "sqrt(m/n): RMS-to-RMS operator norm 1 (Dion)",
       [](double m, double n) { return std::sqrt(m / n); }},
      {"match_rms_adamw", "0.2 sqrt(max(m, n)): root mean square 0.2 (Moonlight)",
       [](double m, double n) { return 0.2 * std::sqrt(std::max(m, n)); }},
  };
  return list;
}

inline std::vector<std::string> shape_scale_names() { return names_of(shape_scales()); }

inline double shape_scale(const std::string& name, int64_t m, int64_t n) {
  return find_named("scale", shape_scales(), name).factor(double(m), double(n));
}

}  // namespace murmur
