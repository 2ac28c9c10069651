// train/revision.cpp - MURMUR_REVISION comes from CMakeLists.txt.
#include "train/revision.h"

namespace murmur {

std::string revision() {
  std::string text = MURMUR_REVISION;
  return text.empty() ? "unknown" : text;
}

}  // namespace murmur
