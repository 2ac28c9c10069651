// tensor/elementwise.cpp - functions of one number by what a user calls them.
#include "tensor/elementwise.h"

#include <cmath>
#include <cstdlib>

#include "tensor/nearest.h"

namespace murmur {

const std::vector<Unary>& unary_list() {
#define UNARY(name, Functor, low, high, summary) unary::name,
#define BINARY(name, Functor, low, high, summary)
#define FUNCTION(name, summary)
  static const std::vector<Unary> all = {
#include "tensor/ops/ops.def"
  };
#undef UNARY
#undef BINARY
#undef FUNCTION
  return all;
}

Unary find_unary(const std::string& what, const std::string& text) {
  const size_t colon = text.find(':');
  const std::string name = text.substr(0, colon);
  std::vector<std::string> names;
  for (const Unary& f : unary_list()) {
    names.push_back(f.function->name);
    if (name != f.function->name) continue;
    if (colon == text.npos) return f;
    if (!f.function->has_constant)
      throw InputError(what + ": " + name + " has no constant; leave out '" + text.substr(colon) +
                       "'");
    const char* number = text.c_str() + colon + 1;
    char* end = nullptr;
    const double constant = std::strtod(number, &end);
    if (end == number || *end || !std::isfinite(constant))
      throw InputError(what + ": '" + number + "' is no number; write " + name + ":0.1");
    return {f.function, constant};
  }
  refuse_name(what, name, names);
}

}  // namespace murmur
