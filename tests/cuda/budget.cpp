// tests/cuda/budget.cpp - what one training step asks of a GPU, counted without one.
//
// The engine issues a whole step while the emulation is dry: nothing is computed, everything is
// written down. Matrix work over a GPU's rate and bytes over its bandwidth give the least time each
// operation could take on an H200; their sum is the floor of the code as it stands. The limits at
// the end keep a change from quietly adding launches, passes over memory or products.
//
//   cuda_budget [BATCH]        GPT-2 124M, T = 1024, bf16, Muon; 64 sequences unless told otherwise
#include <cuda_on_cpu.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "nn/model.h"
#include "optim/update.h"
#include "tensor/cuda/runtime.h"
#include "tensor/profile.h"
#include "train/config.h"

using namespace murmur;

namespace {

constexpr double kFlops = 790e12, kBytes = 4.3e12;  // measured on an H200: bf16 products, copies

struct Limit {
  const char* what;
  double value, most;
};

double least_ms(const OpUse& use) { return 1e3 * std::max(use.flops / kFlops, use.bytes / kBytes); }

}  // namespace

int main(int argc, char** argv) {
  cuda_on_cpu::set_dry(true);
  int64_t batch = argc > 1 ? std::atoll(argv[1]) : 64, time = 1024;
  Config config = make_config({{"preset", "gpt2"},
                               {"optimizer", "muon"},
                               {"dtype", "bf16"},
                               {"clip", "0"},
                               {"device", "cuda"}});
  Model model(model_config(config, 50304), 1, DType::bf16, Device::cuda);
  Update update(model.parameters, make_routes(config), config.clip);
  Tensor tokens({batch, time}, DType::i32, Device::cuda);
  auto step = [&] {
    model.parameters.begin_gradients();
    Tape tape;
    tape.backward(model.gpt.loss(tokens, tokens));
    model.parameters.end_gradients();
  };
  step();
  update.apply();
  reset_peak_memory(Device::cuda);
  int64_t blocks = memory_stats(Device::cuda).fresh_blocks, waits = cuda::counters().waits;
  cuda_on_cpu::launch_log().clear();
  cuda_on_cpu::product_log().clear();
  step();
  size_t model_launches = cuda_on_cpu::launch_log().size(),
         model_products = cuda_on_cpu::product_log().size();
  update.apply();
  size_t launches = cuda_on_cpu::launch_log().size(), products = cuda_on_cpu::product_log().size();
  blocks = memory_stats(Device::cuda).fresh_blocks - blocks;
  waits = cuda::counters().waits - waits;
  double product_flops = 0;
  for (const auto& p : cuda_on_cpu::product_log())
    product_flops += 2.0 * double(p.m) * double(p.n) * double(p.k) * double(p.batch);

  double least[2] = {}, flops = 0;
  std::map<std::string, OpUse> uses[2];
  for (int part = 0; part < 2; part++) {
    Profile profile(Device::cuda);
    part == 0 ? step() : update.apply();
    uses[part] = profile.uses();
  }
  fmt::print("GPT-2 124M, B = {}, T = {}, bf16, Muon: one step as the engine issues it\n\n", batch,
             time);
  for (int part = 0; part < 2; part++) {
    fmt::print("| {:<20} | calls | TFLOP | GB | least ms |\n| --- | --- | --- | --- | --- |\n",
               part == 0 ? "forward and backward" : "update");
    for (const auto& [name, use] : uses[part]) {
      fmt::print("| {:<20} | {} | {:.3f} | {:.2f} | {:.3f} |\n", name, use.calls, use.flops / 1e12,
                 use.bytes / 1e9, least_ms(use));
      least[part] += least_ms(use);
      flops += use.flops;
    }
    fmt::print("\n");
  }
  double tokens_a_step = double(batch * time), total = least[0] + least[1];
  double compulsory = model.gpt.flops_per_token(time) * tokens_a_step;
  fmt::print(
      "least {:.1f} ms = {:.0f}k tokens/s (model {:.1f}, update {:.2f}); products and attention "
      "alone "
      "{:.1f} ms\n",
      total, tokens_a_step / total, least[0], least[1], 1e3 * compulsory / kFlops);
  fmt::print(
      "launches: {} kernels and {} products for the model, {} and {} for the update; {:.1f} TFLOP "
      "in products\n",
      model_launches, model_products, launches - model_launches, products - model_products,
      product_flops / 1e12);
  fmt::print("memory: {:.1f} GB at the peak; {} new blocks and {} waits in the step\n",
             double(memory_stats(Device::cuda).peak_bytes) / 1e9, blocks, waits);

  const Limit limits[] = {
      {"new blocks", double(blocks), 0},
      {"waits", double(waits), 0},
      {"launches of the model, per layer", double(model_launches + model_products) / 12, 25},
      {"launches of the update", double(launches + products - model_launches - model_products),
       116},
      {"least ms of the update", least[1], 3.2},
      // flops_per_token counts four products in the backward of attention; there are five.
      {"work over what the model needs", (flops - uses[1]["matmul"].flops) / compulsory, 1.013},
      {"least ms over products and attention alone",
       batch == 64 ? total / (1e3 * compulsory / kFlops) : 0, 1.19},
  };
  int broken = 0;
  for (const Limit& limit : limits) {
    if (limit.value <= limit.most) continue;
    fmt::print("too much: {}: {:.3f}, at most {}\n", limit.what, limit.value, limit.most);
    broken++;
  }
  return broken ? 1 : 0;
}
