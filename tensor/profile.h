// tensor/profile.h - where the time goes, operation by operation.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "tensor/device.h"

namespace murmur {

struct OpUse {
  double ms = 0;
  int64_t calls = 0;
  double flops = 0;  // of matrix products and attention; causal attention counts half
  double bytes = 0;  // of the tensors a call reads and writes
};
using OpUses = std::map<std::string, OpUse>;

// Between construction and destruction every operation on the device is timed (and waited for) and
// its work counted, except calls from inside a parallel region (slices of an update), which would
// be counted several times. One at a time for each device.
class Profile {
 public:
  explicit Profile(Device device);
  ~Profile();
  Profile(const Profile&) = delete;

  const OpUses& uses() const { return uses_; }  // by name of the operation
  static OpUses* current(Device device);        // nullptr where nobody watches

 private:
  OpUses uses_;
  Device device_;
};

}  // namespace murmur
