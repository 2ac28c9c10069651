// tensor/functor.h - from an operation of ops.def to the struct in tensor/ops/ that computes it.
#pragma once

#include "elementwise_ops.h"  // made by CMake: includes every tensor/ops/*.h
#include "tensor/ops.h"       // Unary, Binary

namespace murmur {

#define FUNCTION(name, summary)
#define MURMUR_CASE(Op, name, Functor) \
  case Op::name:                       \
    return f(Functor{});

// Calls f(Functor{}).
template <class F>
void with_functor(Unary op, const F& f) {
  switch (op) {
#define BINARY(name, Functor, low, high, summary)
#define UNARY(name, Functor, low, high, summary) MURMUR_CASE(Unary, name, Functor)
#include "tensor/ops/ops.def"
#undef BINARY
#undef UNARY
  }
}

template <class F>
void with_functor(Binary op, const F& f) {
  switch (op) {
#define BINARY(name, Functor, low, high, summary) MURMUR_CASE(Binary, name, Functor)
#define UNARY(name, Functor, low, high, summary)
#include "tensor/ops/ops.def"
#undef BINARY
#undef UNARY
  }
}

#undef MURMUR_CASE
#undef FUNCTION

}  // namespace murmur
