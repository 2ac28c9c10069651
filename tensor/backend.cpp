// tensor/backend.cpp - picks the backend of a device.
#include "tensor/backend.h"

namespace murmur {

const Backend& backend(Device device) {
  if (device == Device::cpu) return cpu_backend();
  const Backend* cuda = cuda_backend();
  if (!cuda)
    throw InputError(
        "device: no CUDA engine here (built without it, or no GPU found); use --device cpu");
  return *cuda;
}

}  // namespace murmur
