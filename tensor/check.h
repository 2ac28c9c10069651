// tensor/check.h - the two error types and the one-line check.
//
//   Error       something inside went wrong: shapes do not fit, memory is gone     exit code 1
//   InputError  the user's input is wrong: what, where, what to do                 exit code 2
#pragma once

#include <stdexcept>
#include <string>

namespace murmur {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct InputError : Error {
  using Error::Error;
};

// Throws Error(message()) unless `condition` holds. `message` is only built when it is needed:
//   check(a.cols() == b.rows(), [&] { return "matmul: " + text(a.shape()) + ...; });
template <class Message>
inline void check(bool condition, Message&& message) {
  if (condition) return;
  if constexpr (requires { message(); }) {
    throw Error(message());
  } else {
    throw Error(std::string(message));
  }
}

}  // namespace murmur
