// tests/train/reference_trajectories_test.cpp - 20 steps in fp64 of every optimizer that has a
// public reference program, against that program (tests/golden/): every loss and the weights after.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "nn/model.h"
#include "optim/registry.h"
#include "optim/update.h"
#include "tensor/ops.h"
#include "train/safetensors.h"

using namespace murmur;

namespace {

constexpr int64_t kSteps = 20;

// What the optimizer under test moves; AdamW moves the rest.
enum class Scope { matrices, square_matrices, everything };

struct Row {
  std::string fixture;  // tests/golden/reference_NAME.safetensors
  std::string optimizer;
  std::string settings;     // name value name value, forms first
  double loss_tolerance;    // absolute
  double weight_tolerance;  // relative to the largest of a parameter; the file rounds by 6e-8
  Scope scope = Scope::matrices;
  int64_t warmup = 0;                  // steps of linear warm-up
  bool outputs_up_to_a_shift = false;  // see forget_shift
};

const char kSoap[] =
    "lr 0.003 weight_decay 0.01 beta1 0.95 beta2 0.95 shampoo_beta 0.9 frequency 5 max_dim ";
const char kScheduleFree[] = "lr 0.0025 weight_decay 0.1 beta1 0.9 beta2 0.999";

// The settings are those the fixtures name in their metadata.
const Row kRows[] = {
    {"muon", "muon", "lr 0.02 weight_decay 0.01", 1e-11, 1e-7},
    // There X / max(|X|, eps), here X / (|X| + eps).
    {"torch_muon_original", "muon", "form torch lr 0.001 weight_decay 0.1", 1e-6, 1e-6},
    {"torch_muon_match_rms_adamw", "muon",
     "form torch scale match_rms_adamw lr 0.001 weight_decay 0.1", 1e-6, 1e-6},
    // The same algorithm with another scale of the momentum.
    {"torch_muon_match_rms_adamw", "muon", "form moonlight lr 0.001 weight_decay 0.1", 1e-6, 1e-6},
    {"normuon", "normuon", "form code lr 0.02 weight_decay 0.01", 1e-11, 1e-7},
    {"adamuon", "adamuon", "lr 0.02 weight_decay 0.01", 1e-11, 1e-7},
    {"dion", "dion", "lr 0.01 weight_decay 0.01 momentum 0.95 rank 0.5", 1e-11, 1e-7},
    {"soap_square", "soap", kSoap + std::string("10000"), 1e-7, 1e-6, Scope::square_matrices, 0,
     true},
    {"soap_one_sided", "soap", kSoap + std::string("32"), 1e-7, 1e-6, Scope::matrices, 0, true},
    {"schedule_free_adamw", "schedule_free_adamw", kScheduleFree, 1e-11, 1e-7, Scope::everything},
    {"schedule_free_adamw_warmup", "schedule_free_adamw", kScheduleFree, 1e-11, 1e-7,
     Scope::everything, 5},
    {"lion", "lion", "lr 0.001 weight_decay 0.1 beta1 0.9 beta2 0.99", 1e-11, 1e-7,
     Scope::everything},
};

SafetensorsFile golden(const std::string& name) {
  return SafetensorsFile::open(std::string(MURMUR_SOURCE_DIR) + "/tests/golden/" + name +
                               ".safetensors");
}

void fill(Model& model, const SafetensorsFile& file) {
  for (const Parameter& p : model.parameters.all()) {
    Tensor value = model.parameters.value(p);
    ops::copy(file.read("param." + p.name), value);
  }
}

std::vector<Route> routes(const Row& row) {
  auto set = [](Optimizer& o, const std::string& settings) {
    std::istringstream in(settings);
    for (std::string name, value; in >> name >> value;) set_option(all_options(o), "", name, value);
  };
  NamedOptimizer tested{row.optimizer, make_optimizer(row.optimizer)};
  NamedOptimizer adamw{"adamw", make_optimizer("adamw")};
  set(*tested.optimizer, row.settings);
  set(*adamw.optimizer, "lr 0.003 eps 1e-10 weight_decay 0");
  std::vector<Route> table;
  for (Role role : kRoles) {
    bool to_tested = row.scope == Scope::everything || role == Role::matrix;
    table.push_back({role, to_tested ? tested : adamw, 1, role != Role::vector});
  }
  return table;
}

// Dion starts from random numbers that only its reference can draw: the fixture has them.
void set_first_basis(Update& update, const SafetensorsFile& reference) {
  for (Update::NamedState& state : update.named_state()) {
    if (!state.name.ends_with(".Q")) continue;
    int64_t rank = state.tensor.shape()[1], n = state.tensor.shape()[2];  // it keeps Q^T
    std::vector<double> q = to_vector(reference.read("Q." + std::to_string(n))), transposed;
    for (int64_t j = 0; j < rank; j++)
      for (int64_t i = 0; i < n; i++) transposed.push_back(q[size_t(i * rank + j)]);
    ops::copy(Tensor::of(transposed, {1, rank, n}, DType::f64), state.tensor);
  }
}

// Adding a constant to all keys leaves the softmax as it is, so the gradient of a key's bias is
// zero but for rounding, which some optimizers blow up to full steps: leave those entries out.
void forget_key_bias(std::vector<double>& entries) {
  size_t width = entries.size() / 3;
  std::fill_n(entries.begin() + int64_t(width), width, 0);
}

// What a constant over all outputs of a c_proj adds to the residual stream, every LayerNorm takes
// out again. Along it the gradient is rounding, which SOAP, in whose basis it is a coordinate of
// its own, blows up to full steps: compare what is left of each column without its mean.
void forget_shift(std::vector<double>& entries, size_t rows) {
  size_t cols = entries.size() / rows;
  for (size_t j = 0; j < cols; j++) {
    double mean = 0;
    for (size_t i = 0; i < rows; i++) mean += entries[i * cols + j] / double(rows);
    for (size_t i = 0; i < rows; i++) entries[i * cols + j] -= mean;
  }
}

// The largest difference, relative to the largest entry.
double error(const std::vector<double>& got, const std::vector<double>& expected) {
  REQUIRE(got.size() == expected.size());
  double difference = 0, largest = 0;
  for (size_t i = 0; i < got.size(); i++) {
    double d = std::fabs(got[i] - expected[i]);
    if (!(d <= difference)) difference = d;  // NaN stays
    largest = std::max(largest, std::fabs(expected[i]));
  }
  return difference / largest;
}

// All parameters that the fixture has under "ARCH.POINT.".
void compare(const Row& row, const std::string& arch, const std::string& point, const Model& model,
             const SafetensorsFile& reference) {
  CAPTURE(point);
  size_t compared = 0;
  for (const Parameter& p : model.parameters.all()) {
    std::string name = arch + "." + point + "." + p.name;
    if (!reference.contains(name)) continue;
    CAPTURE(p.name);
    std::vector<double> got = to_vector(model.parameters.value(p)),
                        expected = to_vector(reference.read(name));
    for (std::vector<double>* entries : {&got, &expected}) {
      if (p.name.ends_with("c_attn.bias")) forget_key_bias(*entries);
      if (row.outputs_up_to_a_shift && arch == "gpt2" && p.name.ends_with("c_proj.weight"))
        forget_shift(*entries, size_t(p.shape[0]));
    }
    CHECK(error(got, expected) < row.weight_tolerance);
    compared++;
  }
  CHECK(compared > 0);
}

void check_trajectory(const Row& row, const std::string& arch) {
  CAPTURE(row.fixture);
  CAPTURE(row.settings);
  CAPTURE(arch);
  SafetensorsFile start = golden(arch), reference = golden("reference_" + row.fixture);
  Model model({.n_layer = 2,
               .n_head = 2,
               .n_embd = 32,
               .block_size = 16,
               .vocab_size = 64,
               .arch = arch == "modern" ? Arch::modern : Arch::gpt2},
              1, DType::f64);
  fill(model, start);
  if (row.scope == Scope::square_matrices) {
    for (Bank& bank : model.parameters.banks())  // any role that goes to AdamW will do
      if (bank.role == Role::matrix && bank.rows != bank.cols) bank.role = Role::embedding;
  }
  Update update(model.parameters, routes(row), 1.0);
  set_first_basis(update, reference);

  auto losses =
      nlohmann::json::parse(reference.metadata().at(arch + ".losses")).get<std::vector<double>>();
  REQUIRE(losses.size() == size_t(kSteps));
  Tensor tokens = start.read("tokens"), targets = start.read("targets");
  for (int64_t step = 1; step <= kSteps; step++) {
    CAPTURE(step);
    model.parameters.begin_gradients();
    {
      Tape tape;
      Var loss = model.gpt.loss(tokens, targets);
      tape.backward(loss);
      CHECK(std::fabs(item(loss.value()) - losses[size_t(step - 1)]) < row.loss_tolerance);
    }
    model.parameters.end_gradients();
    update.step(step, row.warmup > step ? double(step) / double(row.warmup) : 1);
  }

  compare(row, arch, "param", model, reference);
  update.with_evaluation_values([&] {
    if (update.averages()) compare(row, arch, "average", model, reference);
  });
}

}  // namespace

TEST_CASE("twenty steps follow the public reference programs, in fp64") {
  for (const Row& row : kRows) {
    SafetensorsFile reference = golden("reference_" + row.fixture);
    for (const char* arch : {"gpt2", "modern"}) {
      if (reference.metadata().count(std::string(arch) + ".losses")) check_trajectory(row, arch);
    }
  }
}
