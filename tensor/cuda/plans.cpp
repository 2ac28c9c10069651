// tensor/cuda/plans.cpp - the table of plans and its file.
#include "tensor/cuda/plans.h"

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tensor/cuda/runtime.h"
#include "tensor/input_file.h"

namespace murmur::cuda {
namespace {

std::string default_path() {
  if (const char* given = std::getenv("MURMUR_CUDA_PLANS")) return given;
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  if (!cache && !home) return "";
  std::string name = device_facts().name;
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '-';
  }
  return (cache ? std::string(cache) : std::string(home) + "/.cache") + "/murmur/products-" + name +
         "-" + std::to_string(cublasLtGetVersion()) + ".txt";
}

std::string line_of(const std::string& key, const Plan& plan) {
  std::ostringstream line;
  line << key << ' ' << plan.ms << ' ' << std::hex;
  for (uint64_t word : plan.algorithm.data) line << word << ',';
  return line.str();
}

bool read_line(const std::string& line, std::string& key, Plan& plan) {
  std::istringstream in(line);
  if (!(in >> key >> plan.ms >> std::hex)) return false;
  for (uint64_t& word : plan.algorithm.data) {
    char comma = 0;
    if (!(in >> word >> comma)) return false;
  }
  return true;
}

}  // namespace

cublasLtHandle_t library() {
  static cublasLtHandle_t handle = [] {
    cublasLtHandle_t h;
    check_library(cublasLtCreate(&h), "cublasLtCreate");
    return h;
  }();
  return handle;
}

void check_library(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw DeviceError(std::string(call) + ": " + cublasLtGetStatusString(status));
}

Plans::Plans(std::string path) : path_(std::move(path)) {
  if (path_.empty() || !path_exists(path_)) return;
  std::istringstream file(read_file(path_));
  std::string line, key;
  for (Plan plan; std::getline(file, line);) {
    if (read_line(line, key, plan)) plans_[key] = plan;
  }
}

const Plan* Plans::find(const std::string& key) const {
  auto found = plans_.find(key);
  return found == plans_.end() ? nullptr : &found->second;
}

// Written beside the old file and renamed over it; what could not be timed stays out. A folder that
// cannot be written to is no error: the next run measures again.
void Plans::keep(const std::string& key, const Plan& plan) {
  plans_[key] = plan;
  if (path_.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), ignored);
  std::string next = path_ + ".new";
  {
    std::ofstream file(next);
    for (const auto& [k, p] : plans_) {
      if (p.ms > 0) file << line_of(k, p) << '\n';
    }
    if (!file) return;
  }
  std::filesystem::rename(next, path_, ignored);
}

Plans& plans() {
  static auto* one = new Plans(default_path());
  return *one;
}

// While a step is captured nothing can be timed: all choices are then equally good.
float time_on_stream(const std::function<void()>& work) {
  cudaStreamCaptureStatus status;
  check_call(cudaStreamIsCapturing(stream(), &status), "cudaStreamIsCapturing");
  if (status != cudaStreamCaptureStatusNone) return 0;
  static cudaEvent_t events[2] = {};
  for (cudaEvent_t& event : events) {
    if (!event) check_call(cudaEventCreate(&event), "cudaEventCreate");
  }
  float best = 0;
  for (int i = 0; i < 4; i++) {
    check_call(cudaEventRecord(events[0], stream()), "cudaEventRecord");
    work();
    check_call(cudaEventRecord(events[1], stream()), "cudaEventRecord");
    check_call(cudaEventSynchronize(events[1]), "cudaEventSynchronize");
    float ms = 0;
    check_call(cudaEventElapsedTime(&ms, events[0], events[1]), "cudaEventElapsedTime");
    if (i == 1 || (i > 1 && ms < best)) best = ms;
  }
  return best;
}

}  // namespace murmur::cuda
