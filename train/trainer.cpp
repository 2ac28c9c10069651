// train/trainer.cpp - the loop of docs/tour.md: batch, loss, backward, update, log, checkpoint.
#include "train/trainer.h"

#include <fmt/format.h>
#include <omp.h>

#include <chrono>
#include <cmath>
#include <filesystem>

#include "dist/strategy.h"
#include "nn/model.h"
#include "optim/update.h"
#include "train/checkpoint.h"
#include "train/data.h"
#include "train/evaluate.h"
#include "train/files.h"
#include "train/interrupt.h"
#include "train/log.h"
#include "train/progress.h"
#include "train/revision.h"
#include "train/run.h"

namespace murmur {
namespace {

class Trainer {
 public:
  Trainer(const Config& config, bool resume, std::optional<int64_t> from);
  void run();

 private:
  LogRow step(int64_t number);
  double forward_backward(int64_t step);
  void save(int64_t step);
  void restore(std::optional<int64_t> from);
  void print_header() const;
  std::string loss_plot() const { return config_.out + "/loss.png"; }

  Config config_;
  Dataset data_;
  Model model_;
  Update update_;
  Schedule schedule_;
  std::unique_ptr<Strategy> strategy_;
  int64_t start_ = 0;  // steps already done
};

Trainer::Trainer(const Config& config, bool resume, std::optional<int64_t> from)
    : config_(config),
      data_(config.data),
      model_(model_config(config, data_.vocab_size()), uint64_t(config.seed),
             activation_type(config), config.device == "cuda" ? Device::cuda : Device::cpu),
      update_(model_.parameters, make_routes(config), config.clip),
      schedule_(make_schedule(config)),
      strategy_(make_strategy(config.strategy)) {
  data_.sequences_per_epoch(Split::train, config.block_size);  // refuses data shorter than a block
  if (from || has_checkpoint(config_.out)) {
    if (!resume) {
      throw InputError(fmt::format(
          "out: '{}' holds a run of {} steps; add --resume to go on, or name another folder",
          config_.out, list_checkpoints(config_.out).back()));
    }
    restore(from);
    // Saved again it is the newest: an interruption now cannot wake the steps that were dropped.
    if (from) save(start_);
  }
  make_directories(config_.out);
  write_file_durably(config_.out + "/config.toml", to_toml(config_));
  if (!data_.tokenizer_path().empty()) {
    write_file_durably(config_.out + "/tokenizer.json", read_file(data_.tokenizer_path()));
  }
}

void Trainer::restore(std::optional<int64_t> from) {
  Checkpoint checkpoint = load_checkpoint(config_.out, from);
  load_parameters(checkpoint, model_.parameters);
  for (auto& state : update_.named_state()) {
    if (!checkpoint.optimizer.contains(state.name)) {
      throw InputError(fmt::format(
          "{}: no state '{}' for optimizer {}; resume with the optimizer the run began with",
          checkpoint.path, state.name, config_.optimizer));
    }
    Tensor saved = checkpoint.optimizer.read(state.name);
    if (saved.numel() != state.tensor.numel()) {
      throw InputError(fmt::format("{}: state '{}' is {}, the model wants {}", checkpoint.path,
                                   state.name, text(saved), text(state.tensor)));
    }
    engine(state.tensor.device()).copy(saved.view(state.tensor.shape()), state.tensor);
  }
  start_ = checkpoint.step;
}

void Trainer::save(int64_t step) {
  std::vector<NamedTensor> model, optimizer;
  for (const Parameter& p : model_.parameters.all())
    model.push_back({p.name, model_.parameters.value(p)});
  for (auto& state : update_.named_state()) optimizer.push_back({state.name, state.tensor});
  CheckpointState state;
  state.counters["tokens"] = step * config_.batch_size * config_.block_size;
  state.text["revision"] = revision();
  save_checkpoint(config_.out, step, model, optimizer, state);
}

void Trainer::print_header() const {
  const GptConfig& c = model_.gpt.config();
  fmt::print("murmur {} on {}, {} threads\n", revision(), config_.device, omp_get_max_threads());
  fmt::print(
      "model   {}: {} layers, {} heads, width {}, block {}, vocabulary {}; {:.2f}M parameters, "
      "{}\n",
      config_.arch, c.n_layer, c.n_head, c.n_embd, c.block_size, c.vocab_size,
      double(model_.parameters.count()) / 1e6, config_.dtype);
  fmt::print("data    {}: {} training tokens, {} for validation\n", config_.data,
             data_.tokens(Split::train), data_.tokens(Split::val));
  int64_t per_step = config_.batch_size * config_.block_size;
  fmt::print("run     {}: {} steps of {} tokens ({:.2f} epochs), {}\n\n", config_.out,
             config_.steps, per_step,
             double(config_.steps * config_.batch_size) /
                 double(data_.sequences_per_epoch(Split::train, config_.block_size)),
             start_ ? fmt::format("going on after step {}", start_)
                    : fmt::format("seed {}", config_.seed));
  fmt::print("{}\n", routing_table(update_.routes(), model_.parameters.banks()));
  std::fflush(stdout);
}

// The mean loss of the step's micro-batches; each contributes its share to the gradients.
double Trainer::forward_backward(int64_t step) {
  Parameters& parameters = model_.parameters;
  int64_t micro = config_.batch_size / config_.accumulation;
  Tensor share =
      Tensor::of({1.0 / double(config_.accumulation)}, {}, compute_type(activation_type(config_)));
  double total = 0;
  parameters.begin_gradients();
  for (int64_t i = 0; i < config_.accumulation; i++) {
    Batch batch =
        data_.batch(Split::train, uint64_t(config_.seed),
                    (step - 1) * config_.batch_size + i * micro, micro, config_.block_size);
    Tape tape;
    Var loss = model_.gpt.loss(batch.tokens, batch.targets);
    total += item(loss.value());
    tape.backward(loss, share);
  }
  parameters.end_gradients();
  return total / double(config_.accumulation);
}

LogRow Trainer::step(int64_t number) {
  auto begin = std::chrono::steady_clock::now();
  LogRow row;
  row.step = number;
  row.train_loss = forward_backward(number);
  if (!std::isfinite(row.train_loss)) {
    throw Error(
        fmt::format("step {}: the loss is {}; lower the learning rate; the checkpoints of earlier "
                    "steps are intact",
                    number, row.train_loss));
  }
  strategy_->before_update(model_.parameters);
  double factor = schedule_.factor(number);
  row.grad_norm = update_.step(number, factor).gradient_norm;
  strategy_->after_update(model_.parameters);
  row.lr = factor * update_.routes()[0].use.optimizer->learning_rate;
  row.tokens = number * config_.batch_size * config_.block_size;
  row.step_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  row.tokens_per_s = double(config_.batch_size * config_.block_size) / row.step_ms * 1e3;
  return row;
}

void Trainer::run() {
  print_header();
  RunLog log(config_.out + "/log.jsonl", start_ ? std::optional(start_) : std::nullopt);
  Progress progress(config_.steps, stdout, is_live_terminal(stdout), config_.log_every, start_);
  auto due = [&](int64_t every, int64_t step) {
    return step == config_.steps || (every > 0 && step % every == 0);
  };
  auto begin = std::chrono::steady_clock::now();
  if (start_ >= config_.steps)
    progress.message(
        fmt::format("the run already has its {} steps; --steps N takes it further", start_));
  for (int64_t number = start_ + 1; number <= config_.steps; number++) {
    LogRow row = step(number);
    bool last = number == config_.steps;
    if (due(config_.eval_every, number)) {
      Evaluation e =
          evaluate(model_.gpt, data_, config_.batch_size, last ? 0 : config_.eval_batches);
      row.val_loss = e.loss;
      row.bits_per_byte = e.bits_per_byte;
      progress.message(fmt::format(
          "step {:>6}  validation loss {:.4f} nats per token{}", number, e.loss,
          e.bits_per_byte ? fmt::format(", {:.4f} bits per byte", *e.bits_per_byte) : ""));
    }
    log.append(row);
    progress.update(number, row.train_loss, row.lr, row.tokens_per_s);
    bool stop = interrupted();
    if (stop || due(config_.checkpoint_every, number)) save(number);
    if (stop && !last) {
      progress.finish();
      fmt::print("stopped after step {}; the checkpoint is written, --resume goes on\n", number);
      break;
    }
  }
  progress.finish();
  plot_log(read_log(config_.out + "/log.jsonl"), loss_plot(), config_.out);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fmt::print("{} in {}: log.jsonl, loss.png, checkpoint/\n", config_.out, duration_text(seconds));
}

}  // namespace

void train(const Config& config, bool resume, std::optional<int64_t> from) {
  if (config.threads > 0) omp_set_num_threads(int(config.threads));
  catch_interrupts();
  Trainer(config, resume, from).run();
}

}  // namespace murmur
