// nn/model.h - a GPT together with its parameters, allocated and ready to call.
#pragma once

#include "nn/gpt.h"

namespace murmur {

struct Model {
  Parameters parameters;
  Gpt gpt;

  // kept: see Parameters::allocate.
  Model(const GptConfig& config, uint64_t seed, DType activations = DType::f32,
        Device device = Device::cpu, const std::function<Cut(const Bank&)>& kept = {})
      : gpt(config, parameters) {
    parameters.allocate(seed, activations, device, kept);
  }
  Model(const Model&) = delete;  // the model refers to its parameters
};

}  // namespace murmur
