// tensor/profile.h - where the time goes: an engine that watches every call of another one.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "tensor/engine.h"

namespace murmur {

struct OpUse {
  double ms = 0;
  int64_t calls = 0;
  double flops = 0;  // of matrix products and attention; causal attention counts half
  double bytes = 0;  // of the tensors a call reads and writes, each once
};

// Between construction and destruction every call of the device's engine is timed (and waited for)
// and its work counted, except calls from inside a parallel region (slices of an update), which
// would be counted several times.
class Profile {
 public:
  explicit Profile(Device device);
  ~Profile();
  Profile(const Profile&) = delete;

  const std::map<std::string, OpUse>& uses() const;  // by engine method

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
  Device device_;
};

}  // namespace murmur
