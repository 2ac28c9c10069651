// dist/all_reduce.cpp - plain data parallelism: every rank has everything and does everything, on
// the sum of all gradients (scheme S0).
//
//   backward passes a block   its gradients are final: their sum begins           2 f b a parameter
//   before the update         sums end; what belongs to no block follows
#include <algorithm>
#include <deque>
#include <set>

#include "dist/collectives.h"
#include "dist/ownership.h"
#include "dist/strategy.h"
#include "optim/update.h"
#include "tensor/nearest.h"

namespace murmur {
namespace {

const std::string kGradients = "gradients";

class AllReduce final : public Strategy {
 public:
  std::vector<Option> options() override {
    return {{"collectives", &collectives_, "see murmur list collectives", 0, 0,
             names_of(algorithm_list())}};
  }

  Share start(Parameters& parameters, const std::vector<Route>& routes) override {
    Strategy::start(parameters, routes);
    algorithm_ = find_algorithm(collectives_);
    for (const Bank& bank : parameters.banks()) {
      for (int64_t k = 0; k < bank.count; k++) {
        size_t unit = size_t(bank.members[size_t(k)]->unit);
        if (units_.size() <= unit) units_.resize(unit + 1);
        if (unit > 0) units_[unit].push_back(bank.gradient.slice(k, k + 1));
      }
      if (bank.members[0]->unit == 0) units_[0].push_back(bank.gradient);
    }
    parameters.events = {[](int, bool) {},
                         [this](int unit, bool backward) {
                           if (backward && last_ && unit > 0) begin(unit);
                         }};
    Share share;
    share.join_scores = join_scores();
    return share;
  }

  void begin_pass(bool, bool last) override { last_ = last && c().size() > 1; }

  void before_update() override {
    if (c().size() == 1) return;
    std::deque<AllGather> gathers;
    std::set<int> done;
    for (Sum& sum : sums_) {
      sum.scatter.finish();
      gathers.emplace_back(c(), of_unit(kGradients, sum.unit), sum.pieces);
      done.insert(sum.unit);
    }
    for (size_t unit = 0; unit < units_.size(); unit++) {
      if (!done.count(int(unit)))
        all_reduce(c(), of_unit(kGradients, int(unit)), units_[unit], algorithm_);
    }
    for (AllGather& gather : gathers) gather.finish();
    sums_.clear();
  }

  std::vector<std::string> kinds() const override { return {kGradients}; }
  Plan plan(const std::vector<Bank>& banks, const std::vector<const Route*>& routes, DType,
            int ranks) const override {
    Plan plan;
    Algorithm algorithm = find_algorithm(collectives_);
    std::set<int> units;
    for (size_t i = 0; i < banks.size(); i++) {
      const Bank& bank = banks[i];
      double elements = double(bank.count * bank.rows * bank.cols);
      plan.bytes += 2 * 4 * double(ranks - 1) * elements;
      int64_t tensors = bank.members[0]->unit ? bank.count : 1;
      double pieces = std::min(elements / double(tensors), double(ranks));
      if (algorithm == Algorithm::tree) pieces = 1;
      plan.messages += 2 * double(ranks - 1) * double(tensors) * pieces;
      for (const Parameter* p : bank.members) units.insert(p->unit);
      plan.state_bytes += 4 * state_elements(bank, *routes[i]);
    }
    plan.rounds = 2.0 * double(units.size()) * rounds(algorithm, ranks);
    plan.flops = orthogonalization_flops(owners(banks, routes, 1), banks, routes)[0];
    return plan;
  }
  double published_sends(int ranks) const override { return 2.0 * (ranks - 1) / ranks; }

 private:
  struct Sum {
    int unit;
    Pieces pieces;
    ReduceScatter scatter;
  };

  // While backward goes on, in the direct order. Other algorithms wait for its end.
  void begin(int unit) {
    if (algorithm_ != Algorithm::direct) return;
    for (Sum& sum : sums_) sum.scatter.poll();
    parameters().end_gradients(unit);
    Pieces pieces = even_pieces(units_[size_t(unit)], c().size());
    sums_.push_back({unit, pieces, ReduceScatter(c(), of_unit(kGradients, unit), pieces)});
  }

  std::string collectives_ = "direct";
  Algorithm algorithm_ = Algorithm::direct;
  std::vector<Tensors> units_;  // gradients by unit
  bool last_ = false;           // micro-batch: only then are gradients final
  std::deque<Sum> sums_;        // under way
};

}  // namespace

std::unique_ptr<Strategy> make_all_reduce() { return std::make_unique<AllReduce>(); }

}  // namespace murmur
