// dist/sharded.cpp - weights everywhere, the update divided: whoever owns a matrix orthogonalises
// it (scheme S2v; in the NorMuon paper's words, orthogonalisation spread over devices).
//
//   backward passes a block   its gradients are final: their sums begin, each to its owner    f b
//   before the update         sums end; what belongs to no block follows
//   the update                moves what this rank owns, with state for that alone
//   after it                  owners hand out their new weights                               f b
//
// That are the bytes of all_reduce, an N-th of its work and of its optimizer state, and the same
// weights to the bit on all ranks, because one rank computes and all others copy.
#include <algorithm>
#include <deque>
#include <optional>
#include <set>

#include "dist/collectives.h"
#include "dist/ownership.h"
#include "dist/strategy.h"
#include "optim/update.h"

namespace murmur {
namespace {

const std::string kGradients = "gradients", kWeights = "weights";

class Sharded final : public Strategy {
 public:
  std::vector<Option> options() override {
    return {{"collectives",
             &collectives_,
             "direct or ring; see murmur list collectives",
             0,
             0,
             {"direct", "ring"}}};
  }

  Share start(Parameters& parameters, const std::vector<Route>& routes) override {
    Strategy::start(parameters, routes);
    algorithm_ = find_algorithm(collectives_);
    owned_ = owners(parameters.banks(), assign_routes(routes, parameters.banks()), c().size());
    Share share;
    for (const Owned& o : owned_[size_t(c().rank())])
      share.banks.push_back(cut(parameters.banks()[o.bank], o.cut));
    for (const std::vector<Owned>& of_rank : owned_) {  // the same words on all ranks
      if (of_rank.empty())
        throw InputError("strategy: sharded: " + std::to_string(c().size()) +
                         " ranks are more than there are matrices and rows to deal out; use fewer, "
                         "or all_reduce");
    }
    share.sum_squares = sum_squares();
    share.join_scores = join_scores();
    for (const Bank& bank : parameters.banks())
      for (const Parameter* p : bank.members) units_.insert(p->unit);
    parameters.events = {[](int, bool) {},
                         [this](int unit, bool backward) {
                           if (backward && last_ && unit > 0) begin(unit);
                         }};
    return share;
  }

  void begin_pass(bool, bool last) override { last_ = last && c().size() > 1; }

  void before_update() override {
    if (c().size() == 1) return;
    std::set<int> done;
    for (Sum& sum : sums_) {
      sum.scatter.finish();
      done.insert(sum.unit);
    }
    sums_.clear();
    for (int unit : units_) {
      if (!done.count(unit))
        reduce_scatter(c(), of_unit(kGradients, unit), gradients(unit), algorithm_);
    }
  }

  void after_update() override { share_weights(); }
  void share_weights() override {
    all_gather(c(), kWeights, pieces({}, &Bank::value), algorithm_);
    parameters().refresh_shadow();
  }

  std::vector<std::string> kinds() const override { return {kGradients, kWeights}; }
  Plan plan(const std::vector<Bank>& banks, const std::vector<const Route*>& routes, DType,
            int ranks) const override {
    Plan plan;
    std::set<int> units;
    for (const Bank& bank : banks) {
      plan.bytes += 2 * 4 * double(ranks - 1) * double(bank.count * bank.rows * bank.cols);
      for (const Parameter* p : bank.members) units.insert(p->unit);
    }
    plan.rounds = double(units.size() + 1) * rounds(find_algorithm(collectives_), ranks);
    Ownership owned = owners(banks, routes, ranks);
    std::vector<double> flops = orthogonalization_flops(owned, banks, routes);
    plan.flops = *std::max_element(flops.begin(), flops.end());
    for (const std::vector<Owned>& of_rank : owned) {
      double state = 0;
      for (const Owned& o : of_rank) {
        const Bank& bank = banks[o.bank];
        double share = double(o.cut.members() * o.cut.rows()) / double(bank.count * bank.rows);
        state += 4 * share * state_elements(bank, *routes[o.bank]);
        // Gradients go matrix by matrix as blocks are passed, weights all at once.
        double tensors = bank.members[0]->unit ? double(o.cut.members()) : 1;
        plan.messages += double(ranks - 1) * (tensors + 1);
      }
      plan.state_bytes = std::max(plan.state_bytes, state);
    }
    return plan;
  }
  double published_sends(int ranks) const override { return 2.0 * (ranks - 1) / ranks; }

 private:
  struct Sum {
    int unit;
    ReduceScatter scatter;
  };

  void begin(int unit) {
    if (algorithm_ != Algorithm::direct) return;
    for (Sum& sum : sums_) sum.scatter.poll();
    parameters().end_gradients(unit);
    sums_.push_back({unit, ReduceScatter(c(), of_unit(kGradients, unit), gradients(unit))});
  }
  Pieces gradients(int unit) const { return pieces(unit, &Bank::gradient); }

  // By rank: what it owns of one unit, or of all.
  Pieces pieces(std::optional<int> unit, Tensor Bank::*tensor) const {
    Pieces pieces{owned_.size()};
    for (size_t r = 0; r < owned_.size(); r++) {
      for (const Owned& o : owned_[r]) {
        const Bank& bank = parameters().banks()[o.bank];
        Tensor rows = (cut(bank, o.cut).*tensor);
        bool by_member = unit && bank.members[0]->unit > 0;
        for (int64_t k = 0; by_member && k < o.cut.members(); k++) {
          if (bank.members[size_t(o.cut.member + k)]->unit == *unit)
            pieces[r].push_back(rows.slice(k, k + 1));
        }
        if (!by_member && (!unit || *unit == 0)) pieces[r].push_back(rows);
      }
    }
    return pieces;
  }

  std::string collectives_ = "direct";
  Algorithm algorithm_ = Algorithm::direct;
  Ownership owned_;
  std::set<int> units_;
  bool last_ = false;  // micro-batch: only then are gradients final
  std::deque<Sum> sums_;
};

}  // namespace

std::unique_ptr<Strategy> make_sharded() { return std::make_unique<Sharded>(); }

}  // namespace murmur
