// train/threads.h - how many processors a command uses.
#pragma once

#include <cstdint>

namespace murmur {

// 0: as many as there are. InputError where that many threads would only wait for each other.
void use_threads(int64_t wanted);

}  // namespace murmur
