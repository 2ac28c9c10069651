// tensor/nearest.h - the known name that looks most like what the user typed.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace murmur {

// Insertions, deletions, replacements and swaps of neighbours that lead from one word to the other.
int edit_distance(std::string_view from, std::string_view to);

// The known name at the smallest edit distance, the first of several; "" when none is known.
std::string nearest(std::string_view name, std::span<const std::string> known);

}  // namespace murmur
