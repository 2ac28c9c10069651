// tensor/profile.cpp - who watches each device.
#include "tensor/profile.h"

namespace murmur {
namespace {

OpUses* watching[2] = {};

}  // namespace

Profile::Profile(Device device) : device_(device) { watching[int(device)] = &uses_; }

Profile::~Profile() { watching[int(device_)] = nullptr; }

OpUses* Profile::current(Device device) { return watching[int(device)]; }

}  // namespace murmur
