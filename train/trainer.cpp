// train/trainer.cpp - the loop of docs/tour.md: batch, loss, backward, update, log, checkpoint.
#include "train/trainer.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include "dist/collect.h"
#include "dist/collectives.h"
#include "dist/disagreement.h"
#include "dist/transport.h"
#include "tensor/backend.h"
#include "tensor/ops.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/files.h"
#include "train/interrupt.h"
#include "train/loop.h"
#include "train/replica_state.h"
#include "train/revision.h"
#include "train/run.h"
#include "train/same_settings.h"
#include "train/threads.h"

namespace murmur {
namespace {

// Where nodes have weights of their own they need not wait for each other more often than this, in
// steps, to put together a line of the log.
constexpr int64_t kAgreeEvery = 10;

std::unique_ptr<Strategy> joined(const Config& config, Communicator& c,
                                 const std::vector<Assignment>& told) {
  require_same_settings(c, told);
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
          clip_of(c),
          c.batch_size,
          c.accumulation};
}

std::optional<Partition> partition_of(const Config& c, const Dataset& data, int64_t nodes) {
  const PartitionRule rule = partition_rule(c.partition);
  if (rule.kind == PartitionRule::iid) return {};
  return Partition(data, rule, nodes, uint64_t(c.seed), c.block_size);
}

}  // namespace

Trainer::Trainer(const Config& config, Communicator& c, bool resume, std::optional<int64_t> from,
                 Watch watch)
    : config_(config),
      c_(c),
      watch_(std::move(watch)),
      data_(config.data),
      partition_(partition_of(config, data_, c.nodes())),
      strategy_(joined(config, c, shared_settings(config, data_, resume, from))),
      replica_(settings_of(config, data_.vocab_size()), c, *strategy_),
      position_(config.batch_size, config.block_size, c.nodes(), partition_.has_value()),
      schedule_(make_schedule(config)),
      device_(device_of(config)),
      faults_(config.faults),
      step_([this] { replica_.step(); }) {
  faults_.check_nodes(c.nodes());
  bool by_graph = strategy_->may_lose_ranks();
  if (faults_.loses() && !by_graph)
    throw InputError("faults: only strategies that go by a graph go on without a node; use gossip");
  data_.sequences_per_epoch(Split::train, config.block_size);  // refuses data shorter than a block
  start_ = from_rank_zero(c_, "first step", leads() ? prepare_folder(resume, from) : 0);
  position_.share(c_);
  bool fewer = faults_.loses() && faults_.members(start_, c.nodes()) != c.members();
  if (fewer) c_.set_members(faults_.members(start_, c.nodes()));
  // A script counts on its nodes, and so does a race: there a real loss ends the run.
  if (config.transport == "mpi" && by_graph && !faults_.loses() && !watch_) c_.survive();
  bool there = start_ >= 0;
  start_ = std::max<int64_t>(start_, 0);
  if (c_.rank() < 0) return;  // lost; until it is back
  if (fewer) strategy_->members_changed(false);
  if (faults_.skips()) strategy_->leave_out({0});  // refuses now what it would refuse then
  if (there && restore_replica(config_.out, start_, replica_, *strategy_, c_, config_.optimizer)) {
    leave_out(start_);
    strategy_->resumed(start_);
    saved_ = start_;
  } else {
    from_mean_ = there && strategy_->own_weights() && c_.size() > 1;
    if (!there && !config_.init_from.empty()) {
      std::optional<Checkpoint> weights;
      if (leads()) weights = open_weights(config_, data_.tokenizer_path());
      begin_with_weights(weights, replica_, *strategy_, c_);
    }
  }
  // Saved again it is the newest: an interruption now cannot wake the steps that were dropped.
  if (from) save(start_);
  constexpr double kSlowDisk = 1e8;  // bytes a second, until one has been seen
  double bytes = double(4 * replica_.model.parameters.count() + replica_.update.state_bytes());
  reserve_ = std::max(reserve_, bytes / kSlowDisk);
  asked_at_ = seconds_since_start();
  if (!leads()) return;
  if (std::optional<BestCheckpoint> best = best_checkpoint(config_.out)) best_loss_ = best->loss;
  if (!there || start_ < config_.steps)  // a run that is done keeps what it was made with
    write_file_durably(config_.out + "/config.toml", to_toml(config_, config_.out));
  save_identity(config_.out, identity_);
  if (!data_.tokenizer_path().empty()) {
    write_file_durably(config_.out + "/tokenizer.json", read_file(data_.tokenizer_path()));
  }
}

// The step of the checkpoint to go on from, or -1: none.
int64_t Trainer::prepare_folder(bool resume, std::optional<int64_t> from) {
  std::error_code none_there;
  if (std::filesystem::equivalent(config_.out, config_.data, none_there))
    throw InputError(fmt::format("out: '{}' holds the data; name another folder", config_.out));
  lock_.take(config_.out);
  bool there = has_checkpoint(config_.out);
  identity_ = identity_of(replica_.model.gpt.config(), data_);
  if (there && resume) {
    require_same(load_identity(config_.out), identity_, config_.out,
                 "go on with that, or begin another run, with --init-from if with its weights");
  }
  if (there && !resume) {
    throw InputError(fmt::format(
        "out: '{}' holds a run of {} steps; add --resume to go on, or name another folder",
        config_.out, list_checkpoints(config_.out).back()));
  }
  if (!there && !from) return -1;
  int64_t step = find_checkpoint(config_.out, from);
  position_.restore(step, checkpoint_state(config_.out, step).counters);
  if (path_exists(config_.out + "/config.toml"))
    tell_changes(make_config(read_toml(config_.out + "/config.toml")), step);
  return step;
}

// What goes on in another way than it began, for the header.
void Trainer::tell_changes(const Config& began, int64_t step) {
  std::vector<std::string> changed = changes(began, config_);
  if (changed.empty()) return;
  changed_ = fmt::format("changed {}\n", fmt::join(changed, ", "));
  auto rate = [](const Config& c, int64_t at) {
    return make_schedule(c).factor(at) * make_routes(c)[0].use.optimizer->learning_rate;
  };
  double before = rate(began, std::min(step + 1, began.steps)), after = rate(config_, step + 1);
  bool jumps = std::abs(after - before) > 0.01 * std::max(after, before);
  if (jumps && step < config_.steps)
    changed_ += fmt::format("rate    {:.3g} at step {}; as it went before it would be {:.3g}\n",
                            after, step + 1, before);
}

void Trainer::save(int64_t step) {
  double begin = seconds_since_start();
  save_replica(config_.out, step, replica_, *strategy_, c_, position_.counters(step), config_.keep);
  saved_ = step;
  reserve_ = std::max(reserve_, seconds_since_start() - begin);
}

// Is there just enough of it left to save? Once it is so it stays so, also where the estimates fall
// afterwards: a validation may have been broken off for it.
bool Trainer::out_of_time() {
  double end = seconds_since_start() + reserve_ + longest_wait_;
  time_is_up_ = time_is_up_ || (config_.max_minutes > 0 && end > 60 * config_.max_minutes);
  return time_is_up_;
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
  if (partition_) fmt::print("parts   {}\n", partition_->summary());
  int64_t per_step = config_.batch_size * config_.block_size;
  std::string weights =
      config_.init_from.empty() ? "" : fmt::format(", weights of {}", config_.init_from);
  fmt::print("run     {}: {} steps of {} tokens ({:.2f} epochs), {}\n{}\n", config_.out,
             config_.steps, per_step,
             double(position_.sequences(config_.steps)) /
                 double(data_.sequences_per_epoch(Split::train, config_.block_size)),
             start_ ? fmt::format("going on after step {}{}", start_,
                                  from_mean_ ? ", all nodes with the mean of its weights" : "")
                    : fmt::format("seed {}{}", config_.seed, weights),
             changed_);
  fmt::print("{}\n",
             routing_table(replica_.update.routes(), replica_.model.parameters.whole_banks()));
  std::fflush(stdout);
}

// This rank's sequences of a step: its share of one batch for all, or as many of its own text.
Batch Trainer::batch_of(int64_t number) const {
  int64_t done = number - 1, count = replica_.sequences();
  if (partition_) return partition_->batch(c_.node(), position_.sequences(done, c_.node()), count);
  return data_.batch(Split::train, uint64_t(config_.seed),
                     position_.sequences(done) + replica_.first_sequence(), count,
                     config_.block_size);
}

Trainer::Launched Trainer::launch(int64_t number) {
  const Backend& device = backend(device_);
  c_.at_step(number);
  Batch batch = batch_of(number);
  ops::copy(batch.tokens, replica_.tokens);
  ops::copy(batch.targets, replica_.targets);
  double factor = schedule_.factor(number);
  replica_.set_step(number, factor);
  // The first step shows the device what will be asked; the second can be captured.
  if (config_.cuda_graph && number == start_ + 2) step_ = device.capture(step_);
  step_();
  Launched step;
  step.row.step = number;
  step.row.lr = factor * replica_.update.routes()[0].use.optimizer->learning_rate;
  step.row.tokens = position_.tokens(number);
  if (c_.size() > 1) step.row.nodes = c_.size();
  step.loss = device.read_later(replica_.loss());
  step.gradient_squares = device.read_later(replica_.update.gradient_squares());
  return step;
}

// The losses of all ranks; whether one of them is to stop, or was asked to save.
std::vector<double> Trainer::agree(std::vector<double> losses) {
  double now = seconds_since_start();
  longest_wait_ = std::max(0.9 * longest_wait_, now - std::exchange(asked_at_, now));
  size_t count = losses.size();
  int saves = saves_asked();
  for (bool asked : {interrupted(), out_of_time(), saves > saves_seen_})
    losses.push_back(double(asked));
  if (c_.size() > 1) {
    Tensor all = Tensor::of(losses, {int64_t(losses.size())}, DType::f64);
    all_reduce(c_, "losses", {all});
    losses = to_vector(all);
  }
  by_signal_ = by_signal_ || losses[count] > 0;
  stop_ = stop_ || by_signal_ || losses[count + 1] > 0;
  bool save = losses[count + 2] > 0;
  save_ = save_ || save;
  saves_seen_ = save ? saves_asked() : saves;  // what ranks of one process were asked, they share
  losses.resize(count);
  for (double& loss : losses) loss /= strategy_->own_weights() ? c_.size() : 1;
  return losses;
}

void Trainer::diverge(const char* what, int64_t step, double value) {
  diverged_ = true;
  throw Error(fmt::format(
      "step {}: the {} is {}; lower the learning rate; the checkpoints of earlier steps are intact",
      step, what, std::fabs(value)));  // no "-nan"
}

// Reads the numbers of the steps under way, all but the last `keep`.
void Trainer::finish(size_t keep) {
  std::vector<LogRow> rows;
  std::vector<double> own, losses, squares;
  if (under_way_.size() <= keep) return;
  for (size_t i = 0; i + keep < under_way_.size(); i++) {
    rows.push_back(under_way_[i].row);
    squares.push_back(under_way_[i].gradient_squares());
    own.push_back(under_way_[i].loss());
    // What is not finite on one rank ends all of them, after the same step.
    losses.push_back(std::isfinite(squares.back()) ? own.back() : NAN);
  }
  losses = agree(losses);
  under_way_.erase(under_way_.begin(), under_way_.begin() + int64_t(rows.size()));
  auto now = std::chrono::steady_clock::now();
  double ms = std::chrono::duration<double, std::milli>(now - clock_).count() / double(rows.size());
  clock_ = now;
  for (size_t i = 0; i < rows.size(); i++) {
    LogRow& row = rows[i];
    row.train_loss = losses[i];
    if (!std::isfinite(row.train_loss)) {
      diverged_ = true;
      if (std::isfinite(own[i])) replica_.update.require_finite(squares[i]);
      diverge("loss", row.step, row.train_loss);
    }
    row.grad_norm = std::sqrt(squares[i]);
    row.step_ms = ms;
    row.tokens_per_s = double(config_.batch_size * config_.block_size) / ms * 1e3;
    finished_.push_back(row);
  }
}

// The loss of the weights to use; where nodes have their own, also how far apart they are and how
// each of them does, on an N-th of the text. Nothing where it was interrupted.
std::optional<Evaluation> Trainer::evaluate_now(LogRow& row) {
  std::optional<Evaluation> e;
  replica_.with_weights_to_use([&] {
    std::optional<ValidationProgress> progress;
    if (speaks()) progress.emplace(stdout);
    auto go_on = [&](int64_t done, int64_t total) {
      if (progress) progress->update(done, total);
      return !interrupted() && !out_of_time();
    };
    e = evaluate(replica_.model.gpt, data_, config_.batch_size,
                 {.at_most = row.step == config_.steps ? 0 : config_.eval_batches,
                  .sample = config_.eval_batches,
                  .ranks = &c_,
                  .go_on = go_on});
  });
  if (!e) return e;
  row.val_loss = e->loss;
  row.bits_per_byte = e->bits_per_byte;
  if (!strategy_->own_weights() || c_.size() == 1) return e;
  int64_t batches = std::max<int64_t>(1, config_.eval_batches / c_.size());
  double own = evaluate(replica_.model.gpt, data_, config_.batch_size, {.at_most = batches})->loss;
  Tensor losses = Tensor::zeros({2, c_.size()}, DType::f64);
  losses.data<double>()[c_.rank()] = item(replica_.loss());
  losses.data<double>()[c_.size() + c_.rank()] = own;
  all_reduce(c_, "losses", {losses});
  if (row.step > start_) row.node_train_loss = to_vector(losses.slice(0, 1));
  row.node_val_loss = to_vector(losses.slice(1, 2));
  const Parameters& parameters = replica_.model.parameters;
  Disagreement apart = disagreement(c_, parameters, strategy_->common(parameters.values()));
  row.consensus = apart.frobenius;
  row.consensus_spectral = apart.spectral;
  for (const auto& [name, value] : strategy_->health())
    if (name == "tracker_error") row.tracker_error = value;
  return e;
}

// Losses over the same batches are compared: the last validation reads more.
void Trainer::keep_if_best(int64_t step, double loss) {
  if (!config_.keep_best) return;
  if (!from_rank_zero(c_, "whether this is the best", leads() && loss < best_loss_)) return;
  if (saved_ != step) save(step);
  best_loss_ = loss;
  if (leads()) mark_best(config_.out, {step, loss}, config_.keep);
}

// Of the weights after a step that is in the log. False where it was interrupted.
bool Trainer::validate(int64_t number) {
  bool logged = last_row_.step == number;  // else by a rank that is lost
  LogRow row = logged ? last_row_ : LogRow{.step = number};
  std::optional<Evaluation> e = evaluate_now(row);
  asked_at_ = seconds_since_start();
  if (!e) return false;
  if (!std::isfinite(e->loss)) diverge("validation loss", number, e->loss);
  std::string bits =
      row.bits_per_byte ? fmt::format(", {:.4f} bits per byte", *row.bits_per_byte) : "";
  std::string apart = row.consensus ? fmt::format(", nodes {:.2e} apart", *row.consensus) : "";
  say(fmt::format("step {:>6}  validation loss {:.4f} nats per token{}{}", number, *row.val_loss,
                  bits, apart));
  if (leads() && logged) {
    if (!log_) open_log(number);
    if (log_->last() && log_->last()->step == number) log_->complete(row);
  }
  keep_if_best(number, e->of_sample);
  return true;
}

// What an Error of a step was about: numbers, or something else.
bool Trainer::diverged() const {
  return diverged_ || !std::isfinite(item(replica_.loss())) ||
         !std::isfinite(item(replica_.update.gradient_squares()));
}

void Trainer::say(const std::string& text) {
  if (speaks() && progress_) progress_->message(text);
}

void Trainer::open_log(int64_t before) {
  if (!lock_.held()) lock_.try_take(config_.out);  // in place of one that led, and may live yet
  log_.emplace(config_.out + "/log.jsonl", before ? std::optional(before) : std::nullopt);
}

void Trainer::log_finished() {
  const std::vector<LogRow> rows = std::exchange(finished_, {});
  if (!rows.empty()) last_row_ = rows.back();
  if (!leads() || rows.empty()) return;
  if (!log_) open_log(rows[0].step - 1);
  for (const LogRow& row : rows) {
    log_->append(row);
    watch_ ? watch_(row) : progress_->update(row.step, row.train_loss, row.lr, row.tokens_per_s);
  }
}

// Numbers read, a checkpoint, a validation, where they are due: in this order, so that whatever
// happens in a long validation costs nothing but itself.
void Trainer::after_step(int64_t number) {
  auto due = [&](int64_t every) {
    return number == config_.steps || (every > 0 && number % every == 0);
  };
  bool evaluates = due(config_.eval_every), saves = due(config_.checkpoint_every);
  bool each_step = !strategy_->own_weights() || c_.size() == 1;
  if (each_step || due(kAgreeEvery) || evaluates || saves) {
    // On a GPU one step is always under way while the host reads the one before: neither waits.
    finish(device_ == Device::cpu || evaluates || saves ? 0 : 1);
    if (stop_ || save_) finish(0);
    log_finished();
  }
  if (saves || stop_ || save_) save(number);
  if (std::exchange(save_, false))
    say(fmt::format("step {:>6}  a checkpoint is written, as a signal asked for", number));
  bool validated = !evaluates || (!stop_ && validate(number));
  if (!validated && !stop_) {
    agree({});
    if (saved_ != number) save(number);
  }
  complete_ = number == config_.steps && validated;
  if (evaluates || saves) clock_ = std::chrono::steady_clock::now();
}

// Was the run stopped before, or in, the validation that belongs to its newest checkpoint?
bool Trainer::lacks_validation() {
  bool due = start_ > 0 && (start_ == config_.steps ||
                            (config_.eval_every > 0 && start_ % config_.eval_every == 0));
  if (!due) return false;
  bool lacks = log_ && log_->last() && log_->last()->step == start_ && !log_->last()->val_loss;
  if (lacks) last_row_ = *log_->last();
  return from_rank_zero(c_, "whether a validation is left", lacks);
}

void Trainer::stopped_after(int64_t number) {
  if (speaks()) progress_->finish();
  say(fmt::format("stopped after step {}{}{}; the checkpoint is written, --resume goes on", number,
                  number == config_.steps ? ", before the end of the last validation" : "",
                  by_signal_ ? "" : ", its time is up (max_minutes)"));
}

TrainSummary Trainer::run() {
  if (speaks()) print_header();
  if (leads()) open_log(start_);
  progress_.emplace(config_.steps, stdout, is_live_terminal(stdout), config_.log_every, start_);
  auto begin = std::chrono::steady_clock::now();
  if (start_ >= config_.steps)
    say(fmt::format("the run already has its {} steps; --steps N takes it further", start_));
  clock_ = std::chrono::steady_clock::now();
  TrainSummary summary{std::min(start_, config_.steps), replica_.update.state_bytes()};
  complete_ = start_ >= config_.steps;
  if (c_.rank() >= 0 && lacks_validation() && !validate(start_)) {
    agree({});
    complete_ = false;
    stopped_after(start_);
  }
  for (int64_t number = start_ + 1; number <= config_.steps; number++) {
    if (stop_ && !faults_.loses()) break;  // else nodes that come back have to hear of it
    follow_script(number);
    if (c_.rank() < 0 || stop_) continue;
    under_way_.push_back(launch(number));
    for (bool done = false; !done;) {
      try {
        if (strategy_->lost()) throw RankLost("in this step");
        after_step(number);
        done = true;
      } catch (const RankLost&) {
        number = recover(number);
        done = number < config_.steps;
      }
    }
    summary.step = number;
    if (stop_ && !complete_) stopped_after(number);
  }
  if (stop_ && !complete_)
    summary.end = by_signal_ ? TrainSummary::interrupted : TrainSummary::out_of_time;
  if (faults_.loses()) summary.step = wait_for_all(summary.step);
  if (leads()) {
    progress_->finish();
    plot_log(read_log(config_.out + "/log.jsonl"), loss_plot(), config_.out);
    std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    say(fmt::format("{} in {}: log.jsonl, loss.png, checkpoint/", config_.out,
                    duration_text(seconds.count())));
  }
  // A launcher may end all ranks as soon as one ends with a code of its own.
  if (stop_ && !faults_.loses()) c_.barrier();
  return summary;
}

TrainSummary train(const Config& config, bool resume, std::optional<int64_t> from,
                   std::function<void(const LogRow&)> watch) {
  refuse_copies(config.transport);
  use_threads(config.threads);
  if (!watch) catch_interrupts();
  TrainSummary summary;
  World world{config.nodes, config.deadline, device_of(config)};
  run_ranks(config.transport, world, [&](Communicator& c) {
    TrainSummary of_rank = train_rank(c, config, resume, from, watch);
    if (c.rank() == 0 || are_processes(config.transport)) summary = of_rank;
  });
  return summary;
}

TrainSummary train_rank(Communicator& c, const Config& config, bool resume,
                        std::optional<int64_t> from, std::function<void(const LogRow&)> watch) {
  Trainer trainer(config, c, resume, from, std::move(watch));
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
