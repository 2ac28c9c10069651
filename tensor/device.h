// tensor/device.h - where a tensor's bytes live.
#pragma once

#include <cstdint>

namespace murmur {

enum class Device : uint8_t { cpu, cuda };

constexpr const char* name_of(Device device) { return device == Device::cpu ? "cpu" : "cuda"; }

}  // namespace murmur
