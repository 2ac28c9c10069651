// tensor/elementwise.h - the functions of the list tensor/ops/ops.def by name: unary::gelu,
// binary::add. Included where a name is wanted: whoever includes it is compiled anew for a new row.
#pragma once

#include <string>
#include <vector>

#include "tensor/ops.h"

namespace murmur {

#define FUNCTION(name, summary)
#define BINARY(name, Functor, low, high, summary)
#define UNARY(name, Functor, low, high, summary) extern const Unary name;
namespace unary {
#include "tensor/ops/ops.def"
}
#undef UNARY
#undef BINARY
#define UNARY(name, Functor, low, high, summary)
#define BINARY(name, Functor, low, high, summary) extern const Binary name;
namespace binary {
#include "tensor/ops/ops.def"
}
#undef UNARY
#undef BINARY
#undef FUNCTION

const std::vector<Unary>& unary_list();
// From "gelu", or "leaky_relu:0.2" where the function has a constant. `what`: whose setting it is,
// for the InputError of one that is not there.
Unary find_unary(const std::string& what, const std::string& text);

}  // namespace murmur
