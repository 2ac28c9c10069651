// train/bench.cpp - timed loops around the same model, update and ops that training uses.
#include "train/bench.h"

#include <omp.h>
#include <sys/resource.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "autograd/elementwise.h"
#include "nn/model.h"
#include "optim/update.h"
#include "tensor/backend.h"
#include "tensor/ops.h"
#include "tensor/profile.h"
#include "train/bench_timing.h"
#include "train/revision.h"
#include "train/threads.h"

namespace murmur {
namespace {

using Json = nlohmann::ordered_json;

Tensor random_tokens(int64_t batch, int64_t time, int64_t vocabulary, uint64_t stream) {
  Tensor wide({batch, time}, DType::f64), tokens({batch, time}, DType::i32);
  ops::random_uniform(1, stream, 0, double(vocabulary), wide);
  ops::copy(wide, tokens);
  return tokens;
}

// Of a preset's layers: y = x w^T, its gradient to x and that to w.
void bench_products(const Config& config, Json& result) {
  const int64_t n = config.batch_size * config.block_size, c = config.n_embd;
  struct Layer {
    const char* name;
    int64_t in, out;
  };
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const Layer& layer :
         {Layer{"qkv", c, 3 * c}, {"projection", c, c}, {"up", c, 4 * c}, {"down", 4 * c, c}}) {
      Tensor x({n, layer.in}, dtype), w({layer.out, layer.in}, dtype), y({n, layer.out}, dtype),
          dw({layer.out, layer.in});
      for (Tensor* t : {&x, &w}) ops::random_uniform(1, 0, -1, 1, *t);
      auto row = [&](const char* what, const Tensor& a, const Tensor& b, Tensor& to,
                     const MatmulForm& form) {
        double ms = time_of([&] { ops::matmul(a, b, {to}, form); });
        result.push_back({{"name", std::string(layer.name) + " " + what + " " + name_of(dtype)},
                          {"ms", ms},
                          {"gflops", 2 * double(n * layer.in * layer.out) / ms * 1e-6}});
      };
      row("forward", x, w, y, {.transpose_b = true});
      row("to input", y, w, x, {});
      row("to weight", y, x, dw, {.transpose_a = true});
    }
  }
}

}  // namespace

std::string bench_step(const Config& config, int64_t steps) {
  if (config.cuda_graph)
    throw InputError("cuda_graph: bench times a step's parts, which a captured step does not have");
  use_threads(config.threads);
  Device device = device_of(config);
  int64_t vocabulary = config.vocab_size ? config.vocab_size : 256;
  Model model(model_config(config, vocabulary), uint64_t(config.seed), activation_type(config),
              device);
  Update update(model.parameters, make_routes(config), config.clip);
  Tensor tokens = to(device, random_tokens(config.batch_size, config.block_size, vocabulary, 0));
  Tensor targets = to(device, random_tokens(config.batch_size, config.block_size, vocabulary, 1));
  int64_t number = 0;
  double update_ms = 0, forward_ms = 0, backward_ms = 0;
  auto step = [&] {
    double begin = now_ms();
    model.parameters.begin_gradients();
    Tape tape;
    Var loss = model.gpt.loss(tokens, targets);
    double middle = now_ms();
    tape.backward(loss);
    model.parameters.end_gradients();
    double end = now_ms();
    update.step(++number, 1);
    forward_ms += middle - begin;
    backward_ms += end - middle;
    update_ms += now_ms() - end;
  };
  for (int i = 0; i < 3; i++) step();
  backend(device).synchronize();
  reset_peak_memory(device);
  int64_t allocations = memory_stats(device).fresh_blocks;
  forward_ms = backward_ms = update_ms = 0;
  std::vector<double> times;
  for (int64_t i = 0; i < steps; i++) {
    double start = now_ms();
    step();
    backend(device).synchronize();
    times.push_back(now_ms() - start);
  }
  Json result;
  double ms = median(times), tokens_a_step = double(config.batch_size * config.block_size);
  double flops = model.gpt.flops_per_token(config.block_size);
  result["preset"] = config.preset;
  result["arch"] = config.arch;
  result["batch_size"] = config.batch_size;
  result["block_size"] = config.block_size;
  result["device"] = config.device;
  result["dtype"] = name_of(activation_type(config));
  result["optimizer"] = config.optimizer;
  result["threads"] = omp_get_max_threads();
  result["revision"] = revision();
  result["tokens_per_s"] = tokens_a_step / ms * 1e3;
  result["step_ms"] = ms;
  result["forward_ms"] = forward_ms / double(steps);
  result["backward_ms"] = backward_ms / double(steps);
  result["update_ms"] = update_ms / double(steps);
  result["flops_per_token"] = flops;
  result["gflops"] = flops * tokens_a_step / ms * 1e-6;
  result["parameters"] = model.parameters.count();
  result["state_bytes"] = update.state_bytes();
  result["peak_bytes"] = memory_stats(device).peak_bytes;
  result["fresh_blocks_after_warmup"] = memory_stats(device).fresh_blocks - allocations;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  result["peak_rss_bytes"] = int64_t(usage.ru_maxrss) * 1024;

  Profile profile(device);
  for (int i = 0; i < 3; i++) step();
  std::vector<std::pair<std::string, OpUse>> rows(profile.uses().begin(), profile.uses().end());
  std::sort(rows.begin(), rows.end(), [](auto& a, auto& b) { return a.second.ms > b.second.ms; });
  for (auto& [name, use] : rows) {
    result["ops"].push_back({{"name", name},
                             {"ms", use.ms / 3},
                             {"calls", use.calls / 3},
                             {"gflops", use.flops / use.ms * 1e-6},
                             {"gb_s", use.bytes / use.ms * 1e-6}});
  }
  return result.dump(1) + "\n";
}

std::string bench_ops(const Config& config) {
  use_threads(config.threads);
  const int64_t rows = 4096, cols = 1024;  // 16 MiB in fp32: beyond the caches
  const double bytes = double(rows * cols) * 4;
  Json result = Json::array();
  Tensor a({rows, cols}), b({rows, cols});
  ops::random_uniform(1, 0, 0.5, 1.5, a);
  ops::random_uniform(1, 1, 0.5, 1.5, b);
  // forward: reads `inputs` tensors and writes one; backward as the tape runs it, with the forward.
  auto row = [&](const char* name, int inputs,
                 const std::function<Var(const Var&, const Var&)>& f) {
    Var x = Var::leaf(a), y = inputs == 2 ? Var::leaf(b) : Var(b);
    double forward = time_of([&] { f(Var(a), Var(b)); });
    double both = time_of([&] {
      x.reset_gradient();
      y.reset_gradient();
      Tape tape;
      Var out = f(x, y);
      tape.backward(out, b);
    });
    result.push_back({{"name", name},
                      {"forward_ms", forward},
                      {"forward_gb_s", bytes * (inputs + 1) / forward * 1e-6},
                      {"forward_backward_ms", both}});
  };
#define UNARY(name, Functor, low, high, summary) \
  row(#name, 1, [](const Var& x, const Var&) { return name(x); });
#define BINARY(name, Functor, low, high, summary) \
  row(#name, 2, [](const Var& x, const Var& y) { return name(x, y); });
#define FUNCTION(name, summary)
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
#undef FUNCTION
  row("softmax", 1, [](const Var& x, const Var&) { return softmax(x); });
  Tensor gain({cols}), bias({cols});
  ops::fill(gain, 1);
  ops::fill(bias, 0);
  row("layer_norm", 1, [=](const Var& x, const Var&) { return layer_norm(x, gain, bias); });
  row("rms_norm", 1, [=](const Var& x, const Var&) { return rms_norm(x, gain); });
  bench_products(config, result);
  return result.dump(1) + "\n";
}

}  // namespace murmur
