// train/bench_optimizers.cpp - what an update of a model's matrices costs, optimizer by optimizer.
#include <fmt/format.h>
#include <omp.h>

#include <nlohmann/json.hpp>

#include "nn/gpt.h"
#include "optim/registry.h"
#include "optim/update.h"
#include "tensor/backend.h"
#include "tensor/memory.h"
#include "tensor/ops.h"
#include "train/bench.h"
#include "train/bench_timing.h"
#include "train/contender.h"
#include "train/revision.h"
#include "train/threads.h"

namespace murmur {
namespace {

using Json = nlohmann::ordered_json;

// The matrices of the configured model, without the rest of it.
void declare_matrices(const Config& config, Parameters& to) {
  Parameters all;
  Gpt gpt(model_config(config, 256), all);
  for (const Parameter& p : all.all()) {
    if (p.role == Role::matrix)
      to.add(p.name, p.shape, p.role, p.deviation, p.mean).qkv_heads = p.qkv_heads;
  }
}

Json time_update(const Contender& contender, const Config& config) {
  Device device = device_of(config);
  Parameters parameters;
  declare_matrices(config, parameters);
  parameters.allocate(uint64_t(config.seed), activation_type(config), device);
  ops::random_normal(1, 2, 0, 0.01, parameters.gradients());
  std::vector<Route> routes = make_routes(config);
  std::vector<Route> of_matrices;
  for (Route& route : routes) {
    if (route.role == Role::matrix) of_matrices.push_back(route);
  }
  Update update(parameters, of_matrices, 0);
  int64_t number = 0;
  auto step = [&] {
    update.step(++number, 1);
    backend(device).synchronize();
  };
  step();
  int64_t before = memory_stats(device).bytes_in_use;
  reset_peak_memory(device);
  double ms = time_of(step, 300);
  double scratch = double(memory_stats(device).peak_bytes - before);
  double count = double(parameters.count());
  return {{"name", contender.label},
          {"update_ms", ms},
          {"state_bytes", update.state_bytes()},
          {"scratch_bytes", int64_t(scratch)},
          {"bytes_per_parameter", (double(update.state_bytes()) + scratch) / count}};
}

}  // namespace

std::string bench_optimizers(const std::vector<Assignment>& settings,
                             const std::string& contenders) {
  std::string list = contenders;
  for (const OptimizerEntry& entry : optimizer_list()) {
    if (contenders.empty()) list += (list.empty() ? "" : ",") + entry.name;
  }
  Json result, rows = Json::array();
  for (const Contender& contender : parse_contenders(list, "")) {
    Config config = contender_config(settings, contender, contender.rates[0]);
    use_threads(config.threads);
    if (result.empty()) {
      Parameters matrices;
      declare_matrices(config, matrices);
      result = {{"preset", config.preset},          {"matrices", matrices.all().size()},
                {"parameters", matrices.count()},   {"device", config.device},
                {"threads", omp_get_max_threads()}, {"revision", revision()}};
    }
    fmt::print(stderr, "{} ...\n", contender.label);  // SOAP takes its time
    rows.push_back(time_update(contender, config));
  }
  result["optimizers"] = rows;
  return result.dump(1) + "\n";
}

}  // namespace murmur
