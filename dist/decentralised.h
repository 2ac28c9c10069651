// dist/decentralised.h - what all strategies that go by a graph have in common: every node has
// weights of its own, and x <- W x with its neighbours' now and then (dist/mixing.h).
#pragma once

#include <optional>

#include "dist/mixing.h"
#include "dist/strategy.h"
#include "dist/topology_report.h"
#include "optim/option.h"
#include "optim/update.h"

namespace murmur {

class Decentralised : public Strategy {
 public:
  std::vector<Option> options() override;
  bool own_weights() const final { return true; }
  Share start(Parameters& parameters, const std::vector<Route>& routes) override;
  void attach(Update& update) override { update_ = &update; }

  void begin_step(int64_t step, double schedule_factor) override;
  void weights_replaced() final;
  bool may_lose_ranks() const final { return true; }
  bool lost() const final { return lost_; }
  void give_up() final;
  std::string members_changed(bool joined) override;
  void leave_out(const std::set<int>& ranks) override;
  std::vector<State> state() override;
  std::string graph_of_state() const final;

  std::vector<std::string> kinds() const override;
  Plan plan(const std::vector<Bank>& banks, const std::vector<const Route*>& routes,
            DType activations, int ranks) const override;
  int64_t period(int ranks) const override;

 protected:
  // What a subclass mixes besides the weights: names of messages, (P) each.
  virtual std::vector<std::string> other_kinds() const { return {}; }
  // Tensors of the parameters' size that it remembers, for plan().
  virtual int remembers() const { return 0; }
  // An InputError where the graph does not suit the method.
  virtual void suits(const TopologyReport& w, const Topology& topology) const;
  // Where its recursion goes back two steps: the method converges where all eigenvalues of what
  // mixing applies (dist/mixing.h) are above this.
  virtual double eigenvalues_above() const { return -1; }
  // What it remembers begins anew, with other weights; at the start too.
  virtual void restart() {}
  // With other members, and their graph: what a loss has broken is repaired.
  virtual void repair() { restart(); }

  Tensor& weights() const { return parameters().values(); }
  Tensor like_weights() const;  // zeros
  // A stream of messages over the graph.
  Mixer& add_mixer(const std::string& what, const MixingOptions& options);
  // Of the weights, which int8 sends by `replicas`; or of what does without, as trackers do.
  MixingOptions options_of(bool replicas) const;
  // Work that exchanges; where a rank is lost in it, it is left out, and so is all other such work
  // until members_changed().
  template <class Work>
  void exchanging(const Work& work) {
    if (lost_) return;
    try {
      work();
    } catch (const RankLost&) {
      give_up();
    }
  }
  void mix_weights();  // x <- W x, and mix_state
  void mix_state();    // alone, where the weights are mixed in another way
  Mixer& weight_mixer() { return *mixers_[0]; }
  int64_t step() const { return step_; }
  double factor() const { return factor_; }
  bool alone() const { return c().size() == 1; }

  MixingOptions mixing_;

 private:
  void check_graph() const;  // that it suits, of topology_
  MixingOptions state_options() const;
  std::vector<Tensor> state_to_mix() const;

  Update* update_ = nullptr;
  std::optional<Topology> topology_;
  std::vector<std::unique_ptr<Mixer>> mixers_;  // the first: of weights
  Mixer* state_mixer_ = nullptr;
  std::string mix_state_;
  int64_t step_ = 0;
  double factor_ = 1;
  bool lost_ = false;
};

}  // namespace murmur
