// dist/strategy.h - what ranks do together around an update. A strategy knows no formula of an
// optimizer, and an optimizer knows no rank: any of one goes with any of the other.
//
// A strategy is one file, dist/NAME.cpp with make_NAME(), and one line in dist/strategies.def.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "dist/topology.h"
#include "nn/parameter.h"

namespace murmur {

struct Option;  // optim/option.h
struct Route;   // optim/router.h
struct Share;   // optim/update.h
class Update;   // optim/update.h

// What a step of one micro-batch sends, foreseen without running it, of what a strategy itself
// exchanges (Strategy::kinds), not of norms and losses; the mean over its period.
struct Plan {
  double bytes = 0, messages = 0;  // sums over all ranks
  double rounds = 0;               // of the rank with the most: exchanges one after the other
  double flops = 0;                // of orthogonalisation, on the busiest rank
  double state_bytes = 0;          // of optimizers and strategy, on the fullest rank
};

class Strategy {
 public:
  virtual ~Strategy() = default;
  virtual std::vector<Option> options();
  TopologyOptions graph;  // of those that go by one

  // In this order: join(), the parameters are allocated with kept(), start(), attach().
  void join(Communicator& communicator) { c_ = &communicator; }
  virtual std::function<Cut(const Bank&)> kept() { return {}; }  // none: everything is kept
  virtual Share start(Parameters& parameters, const std::vector<Route>& routes);
  virtual void attach(Update& /*update*/) {}  // whose state it may look at

  // Every step: begin_step, then for every micro-batch begin_pass and its forward and backward,
  // then before_update, the update, after_update.
  virtual void begin_step(int64_t /*step*/, double /*schedule_factor*/) {}
  virtual void begin_pass(bool /*first*/, bool /*last*/) {}
  virtual void before_update() {}
  virtual void after_update() {}

  // True where each rank trains weights of its own for a while: a rank's loss is then the mean over
  // its own sequences, not its share of the mean over all.
  virtual bool own_weights() const { return false; }
  // The weights this rank moves have become others: the other ranks are to see them.
  virtual void share_weights() {}
  // All weights have been replaced, the same way on all ranks.
  virtual void weights_replaced() {}
  // What a rank's own weights count for in those that all have in common.
  virtual double mass() const { return 1; }
  // Of values that each rank has its own of, as weights are: sum of mass x over sum of mass.
  Tensor common(const Tensor& x) const;
  // Calls work() while the weights are those the ranks have in common, where each has its own.
  void with_common_weights(const std::function<void()>& work);
  // What it remembers besides: tensors to save and restore, each rank its own, or the same on all.
  struct State {
    std::string name;
    Tensor tensor;
    bool own = false;
  };
  virtual std::vector<State> state() { return {}; }
  // Where that is of use on this graph only: a text that says which; else "".
  virtual std::string graph_of_state() const { return {}; }
  virtual void resumed(int64_t /*step*/) {}  // after weights and state of this step were restored

  // Can it go on where ranks are lost or come back (Communicator::set_members)?
  virtual bool may_lose_ranks() const { return false; }
  // A rank was lost during this step: what it still would exchange is left out.
  virtual bool lost() const { return false; }
  virtual void give_up() {}  // a rank was lost elsewhere: the same, until members_changed()
  // Called by all members once there are others. `joined`: this one has come back, with the weights
  // and state of another. What was done about it, for people.
  virtual std::string members_changed(bool joined);
  // Edges of these ranks are left out in this step, at both ends.
  virtual void leave_out(const std::set<int>& ranks);
  // Numbers about all ranks for the log, by name; all of them ask together.
  virtual std::vector<std::pair<std::string, double>> health() { return {}; }

  // The names under which it sends (Communicator::traffic), and what a step of it will send.
  virtual std::vector<std::string> kinds() const { return {}; }
  virtual Plan plan(const std::vector<Bank>& /*whole*/, const std::vector<const Route*>& /*routes*/,
                    DType /*activations*/, int /*ranks*/) const {
    return {};
  }
  // Steps after which what it sends repeats itself.
  virtual int64_t period(int /*ranks*/) const { return 1; }
  // How often a rank sends each number of a block's matrices a step, as published tables have it,
  // with f = (N - 1) / N; 0: no table has it.
  virtual double published_sends(int /*ranks*/) const { return 0; }

 protected:
  // "gradients: block 3"
  static std::string of_unit(const std::string& kind, int unit) {
    return kind + (unit > 0 ? ": block " + std::to_string(unit - 1) : ": outside the blocks");
  }
  Communicator& c() const { return *c_; }
  Parameters& parameters() const { return *parameters_; }
  // Share's functions for ranks that saw different sequences.
  std::function<void(Tensor&)> sum_squares() const;
  std::function<void()> join_scores() const;

 private:
  Communicator* c_ = nullptr;
  Parameters* parameters_ = nullptr;
};

struct StrategyEntry {
  std::string name, summary;
  std::unique_ptr<Strategy> (*make)();
};

const std::vector<StrategyEntry>& strategy_list();
std::unique_ptr<Strategy> make_strategy(const std::string& name);  // InputError names the nearest
// Sets what is given; InputError names the setting.
void configure(Strategy& strategy, const std::string& name,
               const std::map<std::string, std::string>& settings);

}  // namespace murmur
