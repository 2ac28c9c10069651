// autograd/checkpoint.h - activation checkpointing (Chen et al., 2016): keep the input of a
// function, forget what happens inside, and run it again when its gradient is needed.
#pragma once

#include "autograd/var.h"

namespace murmur {

// y = f(x), with only x saved. f must be a pure function of x and of parameters (leaves).
Var checkpoint(const std::function<Var(const Var&)>& f, const Var& x);

}  // namespace murmur
