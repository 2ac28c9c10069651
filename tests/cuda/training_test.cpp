// tests/cuda/training_test.cpp - whole runs: the same program, the same folders, on either engine.
#include <algorithm>
#include <filesystem>

#include "nn/model.h"
#include "optim/registry.h"
#include "optim/update.h"
#include "tensor/cuda/runtime.h"
#include "tensor/ops.h"
#include "tests/cuda/parity.h"
#include "tests/train/temporary_folder.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/log.h"
#include "train/prepare.h"
#include "train/run.h"
#include "train/trainer.h"

using namespace murmur;

namespace {

// A folder with data of its own; runs write beside it.
struct Place {
  TemporaryFolder folder{quick_place()};
  Place() {
    std::string text;
    for (int i = 0; i < 400; i++)
      text +=
          "and the " + std::to_string(i * i % 97) + " shall be " + std::to_string(i % 13) + "\n";
    put_bytes(folder / "text.txt", text);
    prepare_data({folder / "text.txt"}, "byte", folder / "data");
  }
};

const Place& place() {
  static const Place one;
  return one;
}

Config config_of(const std::string& name, std::vector<Assignment> more) {
  std::vector<Assignment> all = {{"data", place().folder / "data"},
                                 {"out", place().folder / name},
                                 {"n_layer", "2"},
                                 {"n_head", "2"},
                                 {"n_embd", "32"},
                                 {"block_size", "16"},
                                 {"batch_size", "4"},
                                 {"steps", "10"},
                                 {"eval_every", "5"},
                                 {"eval_batches", "2"},
                                 {"checkpoint_every", "5"},
                                 {"warmup", "2"},
                                 {"schedule", "constant"},
                                 {"dtype", "fp32"}};
  all.insert(all.end(), more.begin(), more.end());
  return make_config(all);
}

std::vector<LogRow> log_of(const Config& c) { return read_log(c.out + "/log.jsonl"); }

std::vector<LogRow> run(const std::string& name, std::vector<Assignment> more) {
  Config c = config_of(name, std::move(more));
  train(c, false);
  return log_of(c);
}

// Largest relative difference of the losses and gradient norms of two logs.
double difference(const std::vector<LogRow>& a, const std::vector<LogRow>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  auto compare = [&](double x, double y) {
    worst = std::isfinite(x) ? std::max(worst, std::fabs(x - y) / std::fabs(y)) : 1e9;
  };
  for (size_t i = 0; i < a.size(); i++) {
    REQUIRE(a[i].step == b[i].step);
    compare(a[i].train_loss, b[i].train_loss);
    compare(a[i].grad_norm, b[i].grad_norm);
    if (b[i].val_loss) compare(*a[i].val_loss, *b[i].val_loss);
  }
  return worst;
}

void check_same_checkpoint(const std::string& a, const std::string& b) {
  Checkpoint x = load_checkpoint(place().folder / a), y = load_checkpoint(place().folder / b);
  CHECK(x.step == y.step);
  for (auto [p, q] : {std::pair{&x.model, &y.model}, {&x.optimizer, &y.optimizer}}) {
    REQUIRE(p->names() == q->names());
    for (const std::string& name : p->names()) {
      CAPTURE(name);
      CHECK(same_bits(p->read(name), q->read(name)));
    }
  }
}

}  // namespace

TEST_CASE("ten steps on the GPU are ten steps on the CPU, with every optimizer") {
  for (const OptimizerEntry& entry : optimizer_list()) {
    for (const char* arch : {"gpt2", "modern"}) {
      bool usual = entry.name == "adamw" || entry.name == "muon";
      auto optimizer = make_optimizer(entry.name);
      bool clips = optimizer->largest_score() > 0;
      if (std::string(arch) == "modern" && (!usual || clips)) continue;
      CAPTURE(std::string(arch));
      CAPTURE(entry.name);
      std::string name = std::string(arch) + "-" + entry.name;
      std::vector<Assignment> settings = {{"arch", arch}, {"optimizer", entry.name}};
      bool orthogonalizes = false;
      for (const Option& option : all_options(*optimizer))
        orthogonalizes = orthogonalizes || option.name == "ns_dtype";
      if (clips) settings.push_back({"optimizer.qk_clip", "0.001"});
      if (orthogonalizes) settings.push_back({"optimizer.ns_dtype", "fp32"});
      auto expected = run(name + "-cpu", settings);
      settings.push_back({"device", "cuda"});
      // Bases made on the host (SOAP) rest on statistics with null spaces: rounding chooses there.
      CHECK(difference(run(name + "-cuda", settings), expected) <
            (optimizer->replayable() ? 2e-4 : 1e-2));
      if (!usual) continue;
      settings.push_back({"dtype", "bf16"});
      if (orthogonalizes) settings.push_back({"optimizer.ns_dtype", "auto"});
      CHECK(difference(run(name + "-bf16", settings), expected) < 3e-2);
    }
  }
}

TEST_CASE("a captured step gives the bits of an eager one, and so does the same run again") {
  std::vector<Assignment> settings = {{"device", "cuda"}, {"dtype", "bf16"}, {"accumulation", "2"}};
  run("eager", settings);
  run("again", settings);
  settings.push_back({"cuda_graph", "true"});
  run("graph", settings);
  auto losses = [](const char* name) {
    std::vector<double> all;
    for (const LogRow& row : read_log(place().folder / (std::string(name) + "/log.jsonl")))
      all.push_back(row.train_loss);
    return all;
  };
  CHECK(losses("again") == losses("eager"));
  CHECK(losses("graph") == losses("eager"));
  check_same_checkpoint("again", "eager");
  check_same_checkpoint("graph", "eager");
}

TEST_CASE("a run goes on from its checkpoint bit for bit, and from the other device's closely") {
  std::vector<Assignment> settings = {{"device", "cuda"}};
  run("straight", settings);
  for (const char* first : {"cuda", "cpu"}) {
    std::string name = std::string("halved-") + first;
    std::vector<Assignment> half = {{"device", first}, {"steps", "5"}};
    run(name, half);
    train(config_of(name, settings), true);
    if (std::string(first) == "cuda") check_same_checkpoint(name, "straight");
    auto rows = log_of(config_of(name, settings));
    CHECK(rows.size() == 10);
    CHECK(rows.back().train_loss ==
          doctest::Approx(log_of(config_of("straight", settings)).back().train_loss).epsilon(1e-3));
  }
}

TEST_CASE("after the first step no memory is asked for and nobody waits") {
  Config c = config_of("none", {{"device", "cuda"}, {"dtype", "bf16"}});
  Model model(model_config(c, 256), 1, DType::bf16, Device::cuda);
  Update update(model.parameters, make_routes(c), 1);
  Tensor host({4, 16}, DType::i32);
  for (int i = 0; i < 64; i++) host.data<int32_t>()[i] = i * 37 % 256;
  Tensor tokens = on_gpu(host);
  std::function<double()> loss;
  auto step = [&](int64_t number) {
    ops::copy(host, tokens);
    update.set_step(number, 1);
    model.parameters.begin_gradients();
    Tape tape;
    Var l = model.gpt.loss(tokens, tokens);
    tape.backward(l);
    model.parameters.end_gradients();
    update.apply();
    loss = gpu().read_later(l.value());
  };
  step(1);
  step(2);
  int64_t blocks = memory_stats(Device::cuda).fresh_blocks, waits = cuda::counters().waits;
  for (int number = 3; number < 6; number++) step(number);
  CHECK(memory_stats(Device::cuda).fresh_blocks == blocks);
  CHECK(cuda::counters().waits == waits);
  CHECK(loss() < 5.6);
}

TEST_CASE("a loss that is not finite ends the run and leaves the checkpoint before it") {
  Config c = config_of("diverges", {{"device", "cuda"}, {"optimizer", "sgd"}, {"steps", "5"}});
  train(c, false);
  Config wild = config_of("diverges", {{"device", "cuda"},
                                       {"optimizer", "sgd"},
                                       {"steps", "40"},
                                       {"optimizer.lr", "1000"},
                                       {"clip", "0"},
                                       {"auxiliary.lr", "1000"}});
  CHECK_THROWS_AS(train(wild, true), Error);
  CHECK(load_checkpoint(c.out).step == 5);
}
