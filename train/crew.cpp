// train/crew.cpp - settings go from rank 0 to the others, and each trains its part.
#include "train/crew.h"

#include <fmt/format.h>

#include <exception>

#include "dist/collect.h"
#include "dist/transport.h"
#include "train/interrupt.h"
#include "train/same_settings.h"
#include "train/threads.h"

namespace murmur {
namespace {

constexpr const char* kWhat = "what to train";
constexpr const char* kEnd = "end";  // with an exit code, in place of settings

// Rank 0 and the others, after one of the runs has diverged or none.
class Leader {
 public:
  Leader(Communicator& c, const std::string& transport) : c_(c), transport_(transport) {}

  TrainSummary train(const Config& config, const Watch& watch) {
    bool fits = config.transport == transport_ && (config.nodes == 0 || config.nodes == c_.size());
    if (!fits) {
      throw InputError(fmt::format(
          "nodes: a run on {} ranks of {} in a race on {} of {}; leave --nodes and --transport out",
          config.nodes, config.transport, c_.size(), transport_));
    }
    text_from_rank_zero(c_, kWhat, packed(all_settings(config)));
    training_ = true;
    TrainSummary summary;
    try {
      summary = train_rank(c_, config, true, {}, watch);
    } catch (const Diverged&) {  // on all of them
      training_ = false;
      throw;
    }
    training_ = false;
    return summary;
  }
  bool training() const { return training_; }
  void end(int code) { text_from_rank_zero(c_, kWhat, packed({{kEnd, std::to_string(code)}})); }

 private:
  Communicator& c_;
  std::string transport_;
  bool training_ = false;
};

int follow(Communicator& c) {
  while (true) {
    std::vector<Assignment> settings = unpacked(text_from_rank_zero(c, kWhat, {}));
    if (settings[0].name == kEnd) return std::stoi(settings[0].value);
    try {
      train_rank(c, make_config(settings), true, {}, [](const LogRow&) {});
    } catch (const Diverged&) {
    }
  }
}

}  // namespace

TrainSummary train_here(const Config& config, const Watch& watch) {
  return train(config, true, {}, watch);
}

int with_crew(const Config& config, const std::function<int(const TrainRun&, int ranks)>& lead) {
  refuse_copies(config.transport);
  if (!are_processes(config.transport)) return lead(train_here, 0);
  use_threads(config.threads);
  catch_interrupts();
  int code = 0;
  std::exception_ptr problem;
  run_ranks(
      config.transport, {config.nodes, config.deadline, device_of(config)}, [&](Communicator& c) {
        if (c.rank() > 0) {
          code = follow(c);
          return;
        }
        Leader leader(c, config.transport);
        try {
          code =
              lead([&](const Config& run, const Watch& watch) { return leader.train(run, watch); },
                   c.size());
        } catch (const Error& error) {
          if (leader.training()) throw;  // others may wait in the middle of it
          code = dynamic_cast<const InputError*>(&error) ? 2 : 1;
          problem = std::current_exception();
        }
        leader.end(code);
      });
  if (problem) std::rethrow_exception(problem);
  return code;
}

}  // namespace murmur
