// tensor/profile.h - where the time goes: an engine that times every call of another one.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "tensor/engine.h"

namespace murmur {

struct OpTime {
  double ms = 0;
  int64_t calls = 0;
};

// Between construction and destruction every call of the device's engine is timed, except calls
// from inside a parallel region (slices of an update), which would be counted several times.
class Profile {
 public:
  explicit Profile(Device device);
  ~Profile();
  Profile(const Profile&) = delete;

  const std::map<std::string, OpTime>& times() const;  // by engine method

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
  Device device_;
};

}  // namespace murmur
