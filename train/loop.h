// train/loop.h - what the loop of train/trainer.cpp has at hand; train/members.cpp is the part of
// it that goes on when nodes come and go.
#pragma once

#include <chrono>
#include <cmath>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "dist/faults.h"
#include "dist/replica.h"
#include "train/config.h"
#include "train/data.h"
#include "train/evaluate.h"
#include "train/folder_lock.h"
#include "train/identity.h"
#include "train/log.h"
#include "train/partition.h"
#include "train/position.h"
#include "train/progress.h"
#include "train/trainer.h"

namespace murmur {

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
  Batch batch_of(int64_t number) const;
  Launched launch(int64_t number);
  void finish(size_t keep);
  [[noreturn]] void diverge(const char* what, int64_t step, double value);
  std::vector<double> agree(std::vector<double> losses);
  std::optional<Evaluation> evaluate_now(LogRow& row);
  bool validate(int64_t number);
  bool lacks_validation();
  void open_log(int64_t before);
  void log_finished();
  void after_step(int64_t number);
  void stopped_after(int64_t number);
  int64_t prepare_folder(bool resume, std::optional<int64_t> from);
  void save(int64_t step);
  bool out_of_time();
  void keep_if_best(int64_t step, double loss);
  void tell_changes(const Config& began, int64_t step);
  void print_header() const;
  void say(const std::string& text);

  // train/members.cpp: who takes part.
  void follow_script(int64_t number);
  void leave_out(int64_t number);
  void change_members(std::vector<int> nodes, int64_t number, const std::string& why);
  void take_in(int node, int source);
  int64_t recover(int64_t number);
  int64_t wait_for_all(int64_t step);

  bool leads() const { return c_.rank() == 0; }  // alone touches the run folder, alone speaks
  bool speaks() const { return leads() && !watch_; }
  std::string loss_plot() const { return config_.out + "/loss.png"; }

  Config config_;
  Communicator& c_;
  Watch watch_;  // where there is one, nothing is printed
  Dataset data_;
  Identity identity_;                   // of the rank that leads
  std::optional<Partition> partition_;  // where nodes read different texts
  std::unique_ptr<Strategy> strategy_;
  Replica replica_;
  Position position_;
  Schedule schedule_;
  Device device_;
  Faults faults_;
  std::function<void()> step_;                   // the replica's, captured where that was asked for
  std::deque<Launched> under_way_;               // steps whose numbers were not read yet
  std::vector<LogRow> finished_;                 // that were, and do not stand in the log yet
  LogRow last_row_;                              // the last one that does
  std::chrono::steady_clock::time_point clock_;  // when the last step was finished
  int64_t start_ = 0;                            // steps already done
  int64_t saved_ = -1;                           // the step of the newest checkpoint
  bool stop_ = false, save_ = false;             // one rank at least is to do that
  bool time_is_up_ = false;                      // max_minutes
  bool by_signal_ = false;                       // why it stops, else for its time
  bool complete_ = false;                        // every step, and the last validation
  int saves_seen_ = 0;                           // of saves_asked()
  double reserve_ = 0;                           // seconds that a save may take
  double asked_at_ = 0, longest_wait_ = 0;       // seconds: when, and how rarely, ranks agree
  double best_loss_ = INFINITY;                  // of the best checkpoint; rank 0 knows it
  std::string changed_;                          // since the run began: lines of the header
  bool diverged_ = false;
  FolderLock lock_;            // of the rank that leads
  bool from_mean_ = false;     // a checkpoint of other nodes, or of another strategy
  std::optional<RunLog> log_;  // of the rank that leads
  std::optional<Progress> progress_;
};

}  // namespace murmur
