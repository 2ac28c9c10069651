// train/trainer.cpp - the loop of docs/tour.md: batch, loss, backward, update, log, checkpoint.
#include "train/trainer.h"

#include <fmt/format.h>
#include <omp.h>

#include <chrono>
#include <cmath>
#include <deque>
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

const std::string kTraining = ".training";  // a weight that trains, beside the one to use

class Trainer {
 public:
  using Watch = std::function<void(const LogRow&)>;

  Trainer(const Config& config, bool resume, std::optional<int64_t> from, Watch watch);
  TrainSummary run();
  bool diverged() const;

 private:
  // A step that was launched: its loss and gradient norm are read when they are asked for.
  struct Launched {
    LogRow row;
    std::function<double()> loss, gradient_squares;
  };
  Launched launch(int64_t number);
  LogRow finish(const Launched& step);
  void step_on_device();
  void forward_backward();
  void save(int64_t step);
  void restore(std::optional<int64_t> from);
  void print_header() const;
  std::string loss_plot() const { return config_.out + "/loss.png"; }

  Config config_;
  Watch watch_;  // where there is one, nothing is printed
  Dataset data_;
  Model model_;
  Update update_;
  Schedule schedule_;
  std::unique_ptr<Strategy> strategy_;
  Device device_;
  Tensor tokens_, targets_;     // (batch, block) int32: the step's own, at one place
  Tensor loss_, share_;         // one number: the mean loss; the weight of a micro-batch
  std::function<void()> step_;  // step_on_device(), captured where that was asked for
  std::chrono::steady_clock::time_point clock_;  // when the last step was finished
  int64_t start_ = 0;                            // steps already done
};

Trainer::Trainer(const Config& config, bool resume, std::optional<int64_t> from, Watch watch)
    : config_(config),
      watch_(std::move(watch)),
      data_(config.data),
      model_(model_config(config, data_.vocab_size()), uint64_t(config.seed),
             activation_type(config), device_of(config)),
      update_(model_.parameters, make_routes(config), config.clip),
      schedule_(make_schedule(config)),
      strategy_(make_strategy(config.strategy)),
      device_(device_of(config)),
      tokens_({config.batch_size, config.block_size}, DType::i32, device_),
      targets_(tokens_.shape(), DType::i32, device_),
      loss_({}, compute_type(activation_type(config)), device_),
      share_(loss_.shape(), loss_.dtype(), device_),
      step_([this] { step_on_device(); }) {
  engine(device_).fill(share_, 1.0 / double(config.accumulation));
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
    if (!(saved.shape() == state.tensor.shape())) {
      throw InputError(fmt::format(
          "{}: state '{}' is {}, these settings want {}; resume with those the run began with",
          checkpoint.path, state.name, text(saved.shape()), text(state.tensor.shape())));
    }
    engine(state.tensor.device()).copy(saved, state.tensor);
  }
  for (const Parameter& p : model_.parameters.all()) {
    if (!update_.averages()) break;
    Tensor value = model_.parameters.value(p);
    engine(device_).copy(checkpoint.optimizer.read(p.name + kTraining), value);
  }
  model_.parameters.refresh_shadow();
  size_t wanted =
      update_.named_state().size() + (update_.averages() ? model_.parameters.all().size() : 0);
  if (checkpoint.optimizer.names().size() != wanted) {
    throw InputError(fmt::format(
        "{}: holds {} tensors of optimizer state, {} with these settings has {}; resume with those "
        "the run began with",
        checkpoint.path, checkpoint.optimizer.names().size(), config_.optimizer, wanted));
  }
  start_ = checkpoint.step;
}

// The model file holds the weights to use. Where those are not the ones that train (schedule-free),
// the latter go to the optimizer's file.
void Trainer::save(int64_t step) {
  Parameters& parameters = model_.parameters;
  std::vector<NamedTensor> model, optimizer;
  for (const Parameter& p : parameters.all()) model.push_back({p.name, parameters.value(p)});
  for (auto& state : update_.named_state()) optimizer.push_back({state.name, state.tensor});
  for (const Parameter& p : parameters.all()) {
    if (!update_.averages()) break;
    Tensor value = parameters.value(p), copy(value.shape(), value.dtype(), value.device());
    engine(device_).copy(value, copy);
    optimizer.push_back({p.name + kTraining, copy});
  }
  CheckpointState state;
  state.counters["tokens"] = step * config_.batch_size * config_.block_size;
  state.text["revision"] = revision();
  update_.with_evaluation_values(
      [&] { save_checkpoint(config_.out, step, model, optimizer, state); });
}

void Trainer::print_header() const {
  const GptConfig& c = model_.gpt.config();
  fmt::print("murmur {} on {}, {} threads\n", revision(), config_.device, omp_get_max_threads());
  fmt::print(
      "model   {}: {} layers, {} heads, width {}, block {}, vocabulary {}; {:.2f}M parameters, "
      "{}\n",
      config_.arch, c.n_layer, c.n_head, c.n_embd, c.block_size, c.vocab_size,
      double(model_.parameters.count()) / 1e6, name_of(activation_type(config_)));
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

// Each micro-batch contributes its share to the gradients and to the loss.
void Trainer::forward_backward() {
  Parameters& parameters = model_.parameters;
  int64_t micro = config_.batch_size / config_.accumulation;
  parameters.begin_gradients();
  for (int64_t i = 0; i < config_.accumulation; i++) {
    Tape tape;
    Var loss = model_.gpt.loss(tokens_.slice(i * micro, (i + 1) * micro),
                               targets_.slice(i * micro, (i + 1) * micro));
    engine(device_).scale(1.0 / double(config_.accumulation), loss.value(), {loss_, i > 0});
    tape.backward(loss, share_);
  }
  parameters.end_gradients();
}

// Asks the device for everything and reads nothing back.
void Trainer::step_on_device() {
  forward_backward();
  strategy_->before_update(model_.parameters);
  update_.apply();
  strategy_->after_update(model_.parameters);
}

Trainer::Launched Trainer::launch(int64_t number) {
  const Engine& e = engine(device_);
  Batch batch = data_.batch(Split::train, uint64_t(config_.seed), (number - 1) * config_.batch_size,
                            config_.batch_size, config_.block_size);
  e.copy(batch.tokens, tokens_);
  e.copy(batch.targets, targets_);
  double factor = schedule_.factor(number);
  update_.set_step(number, factor);
  // The first step shows the engine what will be asked; the second can be captured.
  if (config_.cuda_graph && number == start_ + 2) step_ = e.capture(step_);
  step_();
  Launched step;
  step.row.step = number;
  step.row.lr = factor * update_.routes()[0].use.optimizer->learning_rate;
  step.row.tokens = number * config_.batch_size * config_.block_size;
  step.loss = e.read_later(loss_);
  step.gradient_squares = e.read_later(update_.gradient_squares());
  return step;
}

LogRow Trainer::finish(const Launched& step) {
  LogRow row = step.row;
  row.train_loss = step.loss();
  if (!std::isfinite(row.train_loss)) {
    throw Error(
        fmt::format("step {}: the loss is {}; lower the learning rate; the checkpoints of earlier "
                    "steps are intact",
                    row.step, row.train_loss));
  }
  double squares = step.gradient_squares();
  update_.require_finite(squares);
  row.grad_norm = std::sqrt(squares);
  auto now = std::chrono::steady_clock::now();
  row.step_ms = std::chrono::duration<double, std::milli>(now - clock_).count();
  row.tokens_per_s = double(config_.batch_size * config_.block_size) / row.step_ms * 1e3;
  clock_ = now;
  return row;
}

// What an Error of a step was about: numbers, or something else.
bool Trainer::diverged() const {
  return !std::isfinite(item(loss_)) || !std::isfinite(item(update_.gradient_squares()));
}

TrainSummary Trainer::run() {
  if (!watch_) print_header();
  RunLog log(config_.out + "/log.jsonl", start_ ? std::optional(start_) : std::nullopt);
  Progress progress(config_.steps, stdout, is_live_terminal(stdout), config_.log_every, start_);
  auto say = [&](const std::string& text) {
    if (!watch_) progress.message(text);
  };
  auto due = [&](int64_t every, int64_t step) {
    return step == config_.steps || (every > 0 && step % every == 0);
  };
  auto begin = std::chrono::steady_clock::now();
  if (start_ >= config_.steps)
    say(fmt::format("the run already has its {} steps; --steps N takes it further", start_));
  // On a GPU one step is always under way while the host reads the one before: neither waits.
  std::deque<Launched> under_way;
  clock_ = std::chrono::steady_clock::now();
  TrainSummary summary{std::min(start_, config_.steps), update_.state_bytes()};
  for (int64_t number = start_ + 1; number <= config_.steps; number++) {
    under_way.push_back(launch(number));
    bool last = number == config_.steps, stop = interrupted(),
         evaluates = due(config_.eval_every, number),
         saves = stop || due(config_.checkpoint_every, number);
    bool pause = device_ == Device::cpu || evaluates || saves;
    while (under_way.size() > (pause ? 0 : 1)) {
      LogRow row = finish(under_way.front());
      under_way.pop_front();
      if (evaluates && row.step == number) {
        Evaluation e;
        update_.with_evaluation_values([&] {
          e = evaluate(model_.gpt, data_, config_.batch_size, last ? 0 : config_.eval_batches);
        });
        row.val_loss = e.loss;
        row.bits_per_byte = e.bits_per_byte;
        say(fmt::format(
            "step {:>6}  validation loss {:.4f} nats per token{}", number, e.loss,
            e.bits_per_byte ? fmt::format(", {:.4f} bits per byte", *e.bits_per_byte) : ""));
      }
      log.append(row);
      watch_ ? watch_(row) : progress.update(row.step, row.train_loss, row.lr, row.tokens_per_s);
    }
    if (saves) save(number);
    if (evaluates || saves) clock_ = std::chrono::steady_clock::now();
    summary.step = number;
    if (stop && !last) {
      progress.finish();
      say(fmt::format("stopped after step {}; the checkpoint is written, --resume goes on",
                      number));
      break;
    }
  }
  progress.finish();
  plot_log(read_log(config_.out + "/log.jsonl"), loss_plot(), config_.out);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  say(fmt::format("{} in {}: log.jsonl, loss.png, checkpoint/", config_.out,
                  duration_text(seconds)));
  return summary;
}

}  // namespace

TrainSummary train(const Config& config, bool resume, std::optional<int64_t> from,
                   std::function<void(const LogRow&)> watch) {
  if (config.threads > 0) omp_set_num_threads(int(config.threads));
  if (!watch) catch_interrupts();
  Trainer trainer(config, resume, from, std::move(watch));
  try {
    return trainer.run();
  } catch (const InputError&) {
    throw;
  } catch (const Error& error) {
    if (trainer.diverged()) throw Diverged(error.what());
    throw;
  }
}

}  // namespace murmur
