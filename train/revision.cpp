// train/revision.cpp - MURMUR_REVISION comes from CMakeLists.txt.
#include "train/revision.h"

namespace murmur {

std::string revision() { return MURMUR_REVISION; }

}  // namespace murmur
