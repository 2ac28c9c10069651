// train/revision.h - the commit this program was built from.
#pragma once

#include <string>

namespace murmur {

std::string revision();  // "1a2b3c4", "1a2b3c4-dirty", or "unknown"

}  // namespace murmur
