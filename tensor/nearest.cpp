// tensor/nearest.cpp - edit distance with swaps (optimal string alignment), one table per pair.
//
//   d(i, j) = least of  d(i-1, j) + 1,  d(i, j-1) + 1,  d(i-1, j-1) + [a_i != b_j],
//                       d(i-2, j-2) + 1  where a_i a_(i-1) = b_(j-1) b_j
#include "tensor/nearest.h"

#include <algorithm>
#include <vector>

#include "tensor/check.h"

namespace murmur {

int edit_distance(std::string_view from, std::string_view to) {
  const size_t width = to.size() + 1;
  std::vector<int> table((from.size() + 1) * width);  // row i, column j: first i letters to first j
  auto d = [&](size_t i, size_t j) -> int& { return table[i * width + j]; };
  for (size_t i = 0; i <= from.size(); i++) d(i, 0) = int(i);
  for (size_t j = 0; j <= to.size(); j++) d(0, j) = int(j);
  for (size_t i = 1; i <= from.size(); i++) {
    for (size_t j = 1; j <= to.size(); j++) {
      const int replaced = d(i - 1, j - 1) + (from[i - 1] != to[j - 1]);
      d(i, j) = std::min({d(i - 1, j) + 1, d(i, j - 1) + 1, replaced});
      const bool swapped = i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1];
      if (swapped) d(i, j) = std::min(d(i, j), d(i - 2, j - 2) + 1);
    }
  }
  return d(from.size(), to.size());
}

std::string nearest(std::string_view name, std::span<const std::string> known) {
  auto closer = [&](const std::string& a, const std::string& b) {
    return edit_distance(name, a) < edit_distance(name, b);
  };
  const auto best = std::min_element(known.begin(), known.end(), closer);
  return best == known.end() ? "" : *best;
}

void refuse_name(const std::string& what, const std::string& name,
                 std::span<const std::string> known) {
  throw InputError(what + ": there is no '" + name + "'; did you mean '" + nearest(name, known) +
                   "'?");
}

}  // namespace murmur
