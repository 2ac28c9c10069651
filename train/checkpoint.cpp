// train/checkpoint.cpp - saving in an order in which every moment leaves a whole checkpoint.
//
//   write .step-N.part | rename to step-N | point `latest` at it | remove what is older
// Each step is fsynced before the next. A folder to be removed first gets a dotted name, in one
// rename: a folder called step-N is whole at all times.
#include "train/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>
#include <system_error>

#include "tensor/check.h"    // Error, InputError
#include "train/checksum.h"  // crc32c
#include "train/files.h"     // write_file_durably, replace_directory, ...
#include "train/json.h"

namespace murmur {
namespace {

using nlohmann::json;

constexpr const char* kModel = "model.safetensors";
constexpr const char* kOptimizer = "optimizer.safetensors";
constexpr const char* kState = "state.json";
constexpr const char* kBest = "best";
constexpr std::string_view kSealed = "{\n  \"checksum\": \"";  // digits follow

std::string folder_of(const std::string& run_dir) { return run_dir + "/checkpoint"; }

std::string part_of(const std::string& folder, int64_t step) {
  return folder + "/." + checkpoint_name(step) + ".part";
}

// state.json --------------------------------------------------------------------------------------

// JSON has no infinities and no not-a-number; they are kept as texts.
json value_to_json(double value) {
  return std::isfinite(value) ? json(value) : json(fmt::format("{}", value));
}

double value_from_json(const json& value) {
  if (value.is_number()) return value.get<double>();
  const auto& text = value.get_ref<const std::string&>();
  double magnitude = text.ends_with("inf") ? INFINITY : NAN;
  return text.starts_with('-') ? -magnitude : magnitude;
}

int64_t number_from_json(const json& value, int64_t low = 0) {
  std::optional<int64_t> number = whole_number(value, low);
  check(number.has_value(),
        "checkpoint: state.json holds a number that is no whole one of 64 bits");
  return *number;
}

// The checksum covers the whole text, its own digits read as 00000000.
std::string sealed(std::string text) {
  text.replace(kSealed.size(), 8, kNoChecksum);
  return text.replace(kSealed.size(), 8, checksum_text(crc32c(text.data(), text.size())));
}

std::string state_text(int64_t step, const CheckpointState& state, const json& files) {
  json values = json::object();
  for (const auto& [name, value] : state.values) values[name] = value_to_json(value);
  json root = {{"checksum", kNoChecksum},    {"step", step},       {"files", files},
               {"counters", state.counters}, {"text", state.text}, {"values", values}};
  try {
    return sealed(root.dump(2) + "\n");  // keys are sorted: the checksum comes first
  } catch (const json::type_error&) {
    throw Error("checkpoint: a name or text of the state is not UTF-8; encode it first");
  }
}

// The checksum also guards against doubled keys: whoever wrote this text had a map.
json read_state(const std::string& path) {
  std::string text = read_file(path);
  bool whole =
      text.starts_with(kSealed) && text.size() > kSealed.size() + 8 && sealed(text) == text;
  json root = whole ? json::parse(text, nullptr, false) : json();
  if (!root.is_object()) {
    throw InputError(path + ": damaged or edited: its checksum does not fit; use another copy");
  }
  return root;
}

CheckpointState state_from(const json& root) {
  CheckpointState state;
  for (const auto& [name, value] : root.at("counters").items()) {
    state.counters[name] = number_from_json(value, INT64_MIN);
  }
  root.at("text").get_to(state.text);
  for (const auto& [name, value] : root.at("values").items()) {
    state.values[name] = value_from_json(value);
  }
  return state;
}

// Folders -----------------------------------------------------------------------------------------

// What an interrupted save or removal left: everything called .step-*
void sweep(const std::string& folder) {
  std::vector<std::string> leftovers;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with(".step-")) {
      leftovers.push_back(entry.path().string());
    }
  }
  for (const std::string& path : leftovers) remove_tree(path);
}

void retire(const std::string& folder, std::span<const int64_t> steps) {
  for (int64_t step : steps) {
    rename_path(folder + "/" + checkpoint_name(step), part_of(folder, step));
  }
  if (!steps.empty()) sync_directory(folder);
  sweep(folder);
}

Checkpoint open_checkpoint(const std::string& path, int64_t step) {
  json root = read_state(path + "/" + kState);
  auto open = [&](const char* name) {
    SafetensorsFile file = SafetensorsFile::open(path + "/" + name);
    if (file.checksum() != root.at("files").at(name).get<std::string>()) {
      throw InputError(
          fmt::format("{}: belongs to another checkpoint than {} beside it; use another copy",
                      file.path(), kState));
    }
    return file;
  };
  int64_t own = number_from_json(root.at("step"));
  if (own != step) {
    throw InputError(
        fmt::format("{}/{}: is of step {}; give the folder its old name", path, kState, own));
  }
  return Checkpoint{step, open(kModel), open(kOptimizer), state_from(root), path};
}

// Keeps the best, and of the others the newest ones.
void prune(const std::string& run_dir, int64_t keep) {
  std::vector<int64_t> old = list_checkpoints(run_dir);
  if (std::optional<BestCheckpoint> best = best_checkpoint(run_dir)) std::erase(old, best->step);
  old.resize(size_t(std::max<int64_t>(0, int64_t(old.size()) - keep)));
  if (!old.empty()) retire(folder_of(run_dir), old);
}

// What else there is, the newest first.
std::string others_than(const std::string& run_dir, int64_t step) {
  std::vector<int64_t> steps = list_checkpoints(run_dir);
  std::string others;
  for (auto other = steps.rbegin(); other != steps.rend(); other++) {
    if (*other != step) others += (others.empty() ? "" : " or ") + checkpoint_name(*other);
  }
  return others.empty() ? "" : others + " (sample, eval, export: --step)";
}

// open(path, step) of a checkpoint; damage names the others.
template <class Open>
auto opened(const std::string& run_dir, std::optional<int64_t> wanted, Open open) {
  int64_t step = find_checkpoint(run_dir, wanted);
  std::string path = folder_of(run_dir) + "/" + checkpoint_name(step);
  std::string others = others_than(run_dir, step);
  std::string instead = others.empty() ? "" : " or --resume-from " + others;
  try {
    return open(path, step);
  } catch (const Error& error) {
    throw InputError(error.what() + instead);
  } catch (const json::exception&) {
    throw InputError(fmt::format("{}/{}: lacks an entry; use the Murmur that wrote it{}", path,
                                 kState, instead));
  }
}

}  // namespace

std::string checkpoint_name(int64_t step) { return fmt::format("step-{:08}", step); }

std::optional<int64_t> checkpoint_step(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return {};
  int64_t step = 0;
  const char* end = name.data() + name.size();
  auto [stop, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (error != std::errc() || stop != end || step < 0) return {};
  return step;
}

std::vector<int64_t> list_checkpoints(const std::string& run_dir) {
  std::vector<int64_t> steps;
  std::error_code error;
  std::filesystem::directory_iterator entries(folder_of(run_dir), error);
  bool absent =
      error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory;
  if (error && !absent) {
    throw InputError(folder_of(run_dir) + ": " + error.message() + "; check its permissions");
  }
  for (const auto& entry : entries) {
    std::string name = entry.path().filename().string();
    std::optional<int64_t> step = checkpoint_step(name);
    if (step && name == checkpoint_name(*step)) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

bool has_checkpoint(const std::string& run_dir) { return !list_checkpoints(run_dir).empty(); }

void save_checkpoint(const std::string& run_dir, int64_t step, std::span<const NamedTensor> model,
                     std::span<const NamedTensor> optimizer, const CheckpointState& state,
                     int64_t keep) {
  check(step >= 0, "checkpoint: the step is negative");
  std::string folder = folder_of(run_dir), part = part_of(folder, step);
  make_directories(folder);
  sweep(folder);
  try {
    make_directories(part);
    json files;
    files[kModel] = write_safetensors(part + "/" + kModel, model);
    files[kOptimizer] = write_safetensors(part + "/" + kOptimizer, optimizer);
    write_file_durably(part + "/" + kState, state_text(step, state, files));
  } catch (...) {
    std::error_code ignored;  // a full disk should not stay full
    std::filesystem::remove_all(part, ignored);
    throw;
  }
  replace_directory(part, folder + "/" + checkpoint_name(step));
  sync_directory(folder);

  // Abandoned later steps go first, ascending: until the last is gone, the newest is what it was.
  std::vector<int64_t> steps = list_checkpoints(run_dir);
  auto later = std::upper_bound(steps.begin(), steps.end(), step);
  std::optional<BestCheckpoint> best = best_checkpoint(run_dir);
  if (best && best->step > step) remove_tree(folder + "/" + kBest);
  retire(folder, std::span(later, steps.end()));
  write_file_durably(folder + "/latest", checkpoint_name(step) + "\n");
  prune(run_dir, keep);
}

void mark_best(const std::string& run_dir, BestCheckpoint best, int64_t keep) {
  write_file_durably(folder_of(run_dir) + "/" + kBest,
                     fmt::format("{} {}\n", checkpoint_name(best.step), best.loss));
  prune(run_dir, keep);
}

std::optional<BestCheckpoint> best_checkpoint(const std::string& run_dir) {
  const std::string path = folder_of(run_dir) + "/" + kBest;
  if (!path_exists(path)) return {};
  std::istringstream words(read_file(path));
  std::string name;
  BestCheckpoint best{};
  words >> name >> best.loss;
  std::optional<int64_t> step = checkpoint_step(name);
  if (!words || !step || !path_exists(folder_of(run_dir) + "/" + name)) return {};
  best.step = *step;
  return best;
}

int64_t find_checkpoint(const std::string& run_dir, std::optional<int64_t> step) {
  std::vector<int64_t> steps = list_checkpoints(run_dir);
  if (steps.empty()) {
    throw InputError(run_dir + ": no checkpoint here; check the path, or train first");
  }
  if (!step) return steps.back();
  if (*step == kBestStep) {
    if (std::optional<BestCheckpoint> best = best_checkpoint(run_dir)) return best->step;
    throw InputError(run_dir + ": no checkpoint is known as the best: none was kept after a " +
                     "validation; use one of " + others_than(run_dir, kBestStep));
  }
  if (std::find(steps.begin(), steps.end(), *step) != steps.end()) return *step;
  throw InputError(fmt::format("{}/{}: no such checkpoint; use --resume-from {}",
                               folder_of(run_dir), checkpoint_name(*step),
                               others_than(run_dir, *step)));
}

Checkpoint load_checkpoint(const std::string& run_dir, std::optional<int64_t> step) {
  return opened(run_dir, step, open_checkpoint);
}

CheckpointState checkpoint_state(const std::string& run_dir, std::optional<int64_t> step) {
  return opened(run_dir, step, [](const std::string& path, int64_t) {
    return state_from(read_state(path + "/" + kState));
  });
}

}  // namespace murmur
