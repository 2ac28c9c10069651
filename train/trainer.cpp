// train/trainer.cpp - the loop of docs/tour.md: batch, loss, backward, update, log, checkpoint.
#include "train/trainer.h"

#include <fmt/format.h>
#include <omp.h>

#include <chrono>
#include <cmath>
#include <deque>
#include <filesystem>

#include "dist/collect.h"
#include "dist/collectives.h"
#include "dist/replica.h"
#include "dist/transport.h"
#include "train/checkpoint.h"
#include "train/data.h"
#include "train/evaluate.h"
#include "train/files.h"
#include "train/interrupt.h"
#include "train/log.h"
#include "train/progress.h"
#include "train/replica_state.h"
#include "train/revision.h"
#include "train/run.h"

namespace murmur {
namespace {

class Trainer {
 public:
  using Watch = std::function<void(const LogRow&)>;

  Trainer(const Config& config, Communicator& c, bool resume, std::optional<int64_t> from,
          Watch watch);
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
  double agree(double loss);
  Evaluation evaluate_now(bool all);
  int64_t prepare_folder(bool resume, std::optional<int64_t> from) const;
  void save(int64_t step);
  void print_header() const;
  bool leads() const { return c_.rank() == 0; }  // alone touches the run folder, alone speaks
  std::string loss_plot() const { return config_.out + "/loss.png"; }

  Config config_;
  Communicator& c_;
  Watch watch_;  // where there is one, nothing is printed
  Dataset data_;
  std::unique_ptr<Strategy> strategy_;
  Replica replica_;
  Schedule schedule_;
  Device device_;
  std::function<void()> step_;                   // the replica's, captured where that was asked for
  std::chrono::steady_clock::time_point clock_;  // when the last step was finished
  int64_t start_ = 0;                            // steps already done
  bool stop_ = false;                            // a signal came, to one rank at least
  bool diverged_ = false;
};

std::unique_ptr<Strategy> joined(const Config& config, Communicator& c) {
  std::unique_ptr<Strategy> strategy = configured_strategy(config);
  strategy->join(c);
  return strategy;
}

ReplicaSettings settings_of(const Config& c, int64_t vocabulary) {
  return {model_config(c, vocabulary),
          uint64_t(c.seed),
          activation_type(c),
          device_of(c),
          make_routes(c),
          c.clip,
          c.batch_size,
          c.accumulation};
}

Trainer::Trainer(const Config& config, Communicator& c, bool resume, std::optional<int64_t> from,
                 Watch watch)
    : config_(config),
      c_(c),
      watch_(std::move(watch)),
      data_(config.data),
      strategy_(joined(config, c)),
      replica_(settings_of(config, data_.vocab_size()), c, *strategy_),
      schedule_(make_schedule(config)),
      device_(device_of(config)),
      step_([this] { replica_.step(); }) {
  data_.sequences_per_epoch(Split::train, config.block_size);  // refuses data shorter than a block
  start_ = from_rank_zero(c_, "first step", leads() ? prepare_folder(resume, from) : 0);
  if (start_ >= 0)
    restore_replica(config_.out, start_, replica_, *strategy_, c_, config_.optimizer);
  start_ = std::max<int64_t>(start_, 0);
  // Saved again it is the newest: an interruption now cannot wake the steps that were dropped.
  if (from) save(start_);
  if (!leads()) return;
  write_file_durably(config_.out + "/config.toml", to_toml(config_));
  if (!data_.tokenizer_path().empty()) {
    write_file_durably(config_.out + "/tokenizer.json", read_file(data_.tokenizer_path()));
  }
}

// The step of the checkpoint to go on from, or -1: none.
int64_t Trainer::prepare_folder(bool resume, std::optional<int64_t> from) const {
  bool there = has_checkpoint(config_.out);
  if (there && !resume) {
    throw InputError(fmt::format(
        "out: '{}' holds a run of {} steps; add --resume to go on, or name another folder",
        config_.out, list_checkpoints(config_.out).back()));
  }
  if (from) return *from;
  make_directories(config_.out);
  return there ? list_checkpoints(config_.out).back() : -1;
}

void Trainer::save(int64_t step) {
  save_replica(config_.out, step, replica_, *strategy_, c_,
               step * config_.batch_size * config_.block_size);
}

void Trainer::print_header() const {
  const GptConfig& c = replica_.model.gpt.config();
  std::string ranks = c_.size() == 1 ? ""
                                     : fmt::format("{} ranks ({}, {}), each ", c_.size(),
                                                   config_.transport, config_.strategy);
  fmt::print("murmur {} on {}, {}{} threads\n", revision(), config_.device, ranks,
             omp_get_max_threads());
  fmt::print(
      "model   {}: {} layers, {} heads, width {}, block {}, vocabulary {}; {:.2f}M parameters, "
      "{}\n",
      config_.arch, c.n_layer, c.n_head, c.n_embd, c.block_size, c.vocab_size,
      double(replica_.model.parameters.count()) / 1e6, name_of(activation_type(config_)));
  fmt::print("data    {}: {} training tokens, {} for validation\n", config_.data,
             data_.tokens(Split::train), data_.tokens(Split::val));
  int64_t per_step = config_.batch_size * config_.block_size;
  fmt::print("run     {}: {} steps of {} tokens ({:.2f} epochs), {}\n\n", config_.out,
             config_.steps, per_step,
             double(config_.steps * config_.batch_size) /
                 double(data_.sequences_per_epoch(Split::train, config_.block_size)),
             start_ ? fmt::format("going on after step {}", start_)
                    : fmt::format("seed {}", config_.seed));
  fmt::print("{}\n",
             routing_table(replica_.update.routes(), replica_.model.parameters.whole_banks()));
  std::fflush(stdout);
}

Trainer::Launched Trainer::launch(int64_t number) {
  const Engine& e = engine(device_);
  c_.at_step(number);
  Batch batch = data_.batch(Split::train, uint64_t(config_.seed),
                            (number - 1) * config_.batch_size + replica_.first_sequence(),
                            replica_.sequences(), config_.block_size);
  e.copy(batch.tokens, replica_.tokens);
  e.copy(batch.targets, replica_.targets);
  double factor = schedule_.factor(number);
  replica_.set_step(number, factor);
  // The first step shows the engine what will be asked; the second can be captured.
  if (config_.cuda_graph && number == start_ + 2) step_ = e.capture(step_);
  step_();
  Launched step;
  step.row.step = number;
  step.row.lr = factor * replica_.update.routes()[0].use.optimizer->learning_rate;
  step.row.tokens = number * config_.batch_size * config_.block_size;
  if (c_.size() > 1) step.row.nodes = c_.size();
  step.loss = e.read_later(replica_.loss());
  step.gradient_squares = e.read_later(replica_.update.gradient_squares());
  return step;
}

// The loss of all ranks; whether one of them was asked to stop.
double Trainer::agree(double loss) {
  if (c_.size() == 1) {
    stop_ = stop_ || interrupted();
    return loss;
  }
  Tensor both = Tensor::of({loss, double(interrupted())}, {2}, DType::f64);
  all_reduce(c_, "losses", {both});
  stop_ = stop_ || both.data<double>()[1] > 0;
  return both.data<double>()[0] / (strategy_->own_weights() ? c_.size() : 1);
}

LogRow Trainer::finish(const Launched& step) {
  LogRow row = step.row;
  row.train_loss = agree(step.loss());
  if (!std::isfinite(row.train_loss)) {
    diverged_ = true;
    throw Error(
        fmt::format("step {}: the loss is {}; lower the learning rate; the checkpoints of earlier "
                    "steps are intact",
                    row.step, row.train_loss));
  }
  double squares = step.gradient_squares();
  replica_.update.require_finite(squares);
  row.grad_norm = std::sqrt(squares);
  auto now = std::chrono::steady_clock::now();
  row.step_ms = std::chrono::duration<double, std::milli>(now - clock_).count();
  row.tokens_per_s = double(config_.batch_size * config_.block_size) / row.step_ms * 1e3;
  clock_ = now;
  return row;
}

Evaluation Trainer::evaluate_now(bool all) {
  Evaluation e;
  replica_.with_weights_to_use([&] {
    e = evaluate(replica_.model.gpt, data_, config_.batch_size, all ? 0 : config_.eval_batches,
                 &c_);
  });
  return e;
}

// What an Error of a step was about: numbers, or something else.
bool Trainer::diverged() const {
  return diverged_ || !std::isfinite(item(replica_.loss())) ||
         !std::isfinite(item(replica_.update.gradient_squares()));
}

TrainSummary Trainer::run() {
  bool speaks = leads() && !watch_;
  if (speaks) print_header();
  std::optional<RunLog> log;
  if (leads())
    log.emplace(config_.out + "/log.jsonl", start_ ? std::optional(start_) : std::nullopt);
  Progress progress(config_.steps, stdout, is_live_terminal(stdout), config_.log_every, start_);
  auto say = [&](const std::string& text) {
    if (speaks) progress.message(text);
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
  TrainSummary summary{std::min(start_, config_.steps), replica_.update.state_bytes()};
  for (int64_t number = start_ + 1; number <= config_.steps; number++) {
    under_way.push_back(launch(number));
    bool last = number == config_.steps, evaluates = due(config_.eval_every, number),
         saves = due(config_.checkpoint_every, number);
    bool pause = device_ == Device::cpu || evaluates || saves;
    while (under_way.size() > (pause || stop_ ? 0 : 1)) {
      LogRow row = finish(under_way.front());
      under_way.pop_front();
      if (evaluates && row.step == number) {
        Evaluation e = evaluate_now(last);
        row.val_loss = e.loss;
        row.bits_per_byte = e.bits_per_byte;
        say(fmt::format(
            "step {:>6}  validation loss {:.4f} nats per token{}", number, e.loss,
            e.bits_per_byte ? fmt::format(", {:.4f} bits per byte", *e.bits_per_byte) : ""));
      }
      if (!leads()) continue;
      log->append(row);
      watch_ ? watch_(row) : progress.update(row.step, row.train_loss, row.lr, row.tokens_per_s);
    }
    saves = saves || stop_;
    if (saves) save(number);
    if (evaluates || saves) clock_ = std::chrono::steady_clock::now();
    summary.step = number;
    if (stop_ && !last) {
      if (speaks) progress.finish();
      say(fmt::format("stopped after step {}; the checkpoint is written, --resume goes on",
                      number));
      break;
    }
  }
  if (!leads()) return summary;
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
  TrainSummary summary;
  World world{config.nodes, config.deadline, device_of(config)};
  run_ranks(config.transport, world, [&](Communicator& c) {
    Trainer trainer(config, c, resume, from, watch);
    try {
      TrainSummary of_rank = trainer.run();
      if (c.rank() == 0) summary = of_rank;
    } catch (const InputError&) {
      throw;
    } catch (const Error& error) {
      if (trainer.diverged()) throw Diverged(error.what());
      throw;
    }
  });
  return summary;
}

}  // namespace murmur
