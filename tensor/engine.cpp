// tensor/engine.cpp - picks the engine of a device.
#include "tensor/engine.h"

namespace murmur {
namespace {

const Engine* replaced[2] = {nullptr, nullptr};

}  // namespace

void replace_engine(Device device, const Engine* engine) { replaced[int(device)] = engine; }

const Engine& engine(Device device) {
  if (const Engine* other = replaced[int(device)]) return *other;
  if (device == Device::cpu) return cpu_engine();
  const Engine* cuda = cuda_engine();
  if (!cuda)
    throw InputError(
        "device: no CUDA engine here (built without it, or no GPU found); use --device cpu");
  return *cuda;
}

}  // namespace murmur
