// tests/dist/nccl_strategies.h - strategies that go by a graph, with weights on GPUs.
#pragma once

#include "dist/communicator.h"

namespace murmur {

// Small runs of all of them on the ranks of `c` beside the same runs on the CPU, over transport
// threads. Returns how many numbers and tensors were compared; an Error names the first that
// differs.
int check_strategies(Communicator& c);

}  // namespace murmur
