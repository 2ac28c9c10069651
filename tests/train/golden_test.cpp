// tests/train/golden_test.cpp - the whole model against an independent PyTorch one (tests/golden/):
// logits, loss, every named gradient, and ten steps of AdamW and of Muon, for both architectures.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "nn/model.h"
#include "optim/registry.h"
#include "optim/update.h"
#include "tensor/ops.h"
#include "train/safetensors.h"

using namespace murmur;

namespace {

std::string golden(const std::string& name) {
  return std::string(MURMUR_SOURCE_DIR) + "/tests/golden/" + name + ".safetensors";
}

struct Golden {
  SafetensorsFile file;
  Model model;

  Golden(const std::string& arch, bool checkpointing = false)
      : file(SafetensorsFile::open(golden(arch))),
        model({.n_layer = 2,
               .n_head = 2,
               .n_embd = 32,
               .block_size = 16,
               .vocab_size = 64,
               .arch = arch == "modern" ? Arch::modern : Arch::gpt2,
               .checkpointing = checkpointing},
              1) {
    for (const Parameter& p : model.parameters.all()) {
      Tensor value = model.parameters.value(p);
      ops::copy(file.read("param." + p.name), value);
    }
  }
  double backward() {
    model.parameters.begin_gradients();
    Tape tape;
    Var loss = model.gpt.loss(file.read("tokens"), file.read("targets"));
    tape.backward(loss);
    model.parameters.end_gradients();
    return item(loss.value());
  }
};

// The largest difference, relative to the largest entry.
double error(const Tensor& got, const Tensor& expected) {
  std::vector<double> a = to_vector(got), b = to_vector(expected);
  REQUIRE(a.size() == b.size());
  double difference = 0, largest = 0;
  for (size_t i = 0; i < a.size(); i++) {
    difference = std::max(difference, std::fabs(a[i] - b[i]));
    largest = std::max(largest, std::fabs(b[i]));
  }
  return difference / largest;
}

// A key's bias shifts all scores of a query alike, so its gradient is zero but for rounding, which
// Adam blows up to full steps: leave those entries out.
void forget_key_bias(const std::string& name, Tensor a, Tensor b) {
  if (name.find("c_attn.bias") == std::string::npos) return;
  int64_t width = a.numel() / 3;
  for (Tensor* x : {&a, &b}) {
    Tensor keys = x->slice(width, 2 * width);
    ops::fill(keys, 0);
  }
}

void check_trajectory(const std::string& arch, const std::string& optimizer, double tolerance) {
  CAPTURE(arch);
  CAPTURE(optimizer);
  Golden g(arch);
  SafetensorsFile after = SafetensorsFile::open(golden(arch + "_" + optimizer));
  auto adamw = std::shared_ptr<Optimizer>(make_optimizer("adamw"));
  auto main = std::shared_ptr<Optimizer>(make_optimizer(optimizer));
  auto set = [](Optimizer& o, const char* name, const char* value) {
    set_option(all_options(o), "", name, value);
  };
  if (optimizer == "adamw") {
    set(*main, "lr", "0.001");
    set(*main, "weight_decay", "0.1");
  } else {
    set(*main, "lr", "0.02");
    set(*main, "weight_decay", "0.01");
    set(*main, "ns_dtype", "fp32");
    set(*adamw, "lr", "0.003");
    set(*adamw, "weight_decay", "0");
    set(*adamw, "eps", "1e-10");
  }
  Update update(g.model.parameters, default_routes({optimizer, main}, {"adamw", adamw}), 1.0);
  std::vector<double> losses = to_vector(after.read("losses"));
  for (int64_t step = 1; step <= 10; step++) {
    CHECK(g.backward() == doctest::Approx(losses[size_t(step - 1)]).epsilon(1e-5));
    update.step(step, 1);
  }
  for (const Parameter& p : g.model.parameters.all()) {
    CAPTURE(p.name);
    Tensor value = g.model.parameters.value(p), expected = after.read("param." + p.name);
    forget_key_bias(p.name, value, expected);
    CHECK(error(value, expected) < tolerance);
  }
}

}  // namespace

TEST_CASE("logits, loss and every named gradient equal PyTorch's") {
  for (const char* arch : {"gpt2", "modern"}) {
    for (bool checkpointing : {false, true}) {
      CAPTURE(arch);
      CAPTURE(checkpointing);
      Golden g(arch, checkpointing);
      {
        NoGrad quiet;
        CHECK(error(g.model.gpt.logits(g.file.read("tokens")).value(), g.file.read("logits")) <
              1e-5);
      }
      CHECK(g.backward() == doctest::Approx(to_vector(g.file.read("loss"))[0]).epsilon(1e-6));
      size_t gradients = 0;
      for (const std::string& name : g.file.names()) gradients += name.rfind("grad.", 0) == 0;
      CHECK(gradients == g.model.parameters.all().size());
      for (const Parameter& p : g.model.parameters.all()) {
        CAPTURE(p.name);
        CHECK(error(g.model.parameters.gradient(p), g.file.read("grad." + p.name)) < 1e-5);
      }
    }
  }
}

TEST_CASE("ten AdamW steps follow PyTorch's") {
  check_trajectory("gpt2", "adamw", 1e-4);
  check_trajectory("modern", "adamw", 1e-4);
}

TEST_CASE("ten Muon steps follow PyTorch's") {
  check_trajectory("gpt2", "muon", 1e-4);
  check_trajectory("modern", "muon", 1e-4);
}
