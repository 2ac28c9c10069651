// tensor/nearest.h - an entry of a list by the name a user typed, or the known name most like it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace murmur {

// Insertions, deletions, replacements and swaps of neighbours that lead from one word to the other.
int edit_distance(std::string_view from, std::string_view to);

// The known name at the smallest edit distance, the first of several; "" when none is known.
std::string nearest(std::string_view name, std::span<const std::string> known);

// Throws InputError: WHAT: there is no 'NAME'; did you mean 'KNOWN'?
[[noreturn]] void refuse_name(const std::string& what, const std::string& name,
                              std::span<const std::string> known);

// Of entries that have a `name`.
template <class List>
std::vector<std::string> names_of(const List& list) {
  std::vector<std::string> names;
  for (const auto& entry : list) names.push_back(entry.name);
  return names;
}

// The entry of that name; or refused. `what` it is, as the user's flag has it: "optimizer".
template <class List>
const auto& find_named(const std::string& what, const List& list, const std::string& name) {
  for (const auto& entry : list) {
    if (entry.name == name) return entry;
  }
  refuse_name(what, name, names_of(list));
}

}  // namespace murmur
