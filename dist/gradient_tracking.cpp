// dist/gradient_tracking.cpp - every node follows the mean gradient of all, not its own (DSGT, Pu &
// Nedic, arXiv 1805.11454; DeMuon, arXiv 2510.01377; GT-NSGDm, arXiv 2505.03736).
//
//   m' = mu m + (1 - mu) g            mu: `momentum`; 0: the gradient itself
//   atc   y <- W (y + m' - m)         x <- W (x - u(y))          two exchanges, one after the other
//   cta   y <- W y + m' - m           x <- W x - u(y)            both at once, beside the gradient
//
// y, the tracker, is what the optimizer gets in the place of a gradient. m = y = 0 at first, and
// columns of W sum to 1: so the sum of y over nodes is that of m, for ever. What is taken off is
// the m that is stored, bit for bit.
//
// Order: `momentum` here comes before the tracking, as in DeMuon; a momentum of the optimizer comes
// after it. On a static graph both are the same (tests/dist/tracking_test.cpp); on one that changes
// they are not, though their means over nodes are.
#include <cmath>

#include "dist/collectives.h"
#include "dist/decentralised.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

const std::string kTrackers = "trackers";

class GradientTracking final : public Decentralised {
 public:
  std::vector<Option> options() override {
    std::vector<Option> all = Decentralised::options();
    all.push_back({"momentum", &momentum_,
                   "mu, of what is tracked; 0: the gradient (the optimizer may have its own)", 0,
                   0.9999});
    all.push_back(
        {"order", &order_, "adapt then combine, or combine then adapt", 0, 0, {"atc", "cta"}});
    all.push_back({"overlap", &overlap_, "cta: messages travel while gradients are computed"});
    return all;
  }
  void suits(const TopologyReport& w, const Topology& topology) const override {
    Decentralised::suits(w, topology);
    bool plain = mixing_.rounds == 1 && mixing_.wire != "int8" && mixing_.keep == 1;
    if (overlap_ && (order_ == "atc" || !plain))
      throw InputError(
          "strategy.overlap: goes with strategy.order cta and one gossip round of fp32 or bf16");
  }

  Share start(Parameters& parameters, const std::vector<Route>& routes) override {
    Share share = Decentralised::start(parameters, routes);
    trackers_ = &add_mixer(kTrackers, options_of(false));
    return share;
  }

  void begin_step(int64_t step, double factor) override {
    Decentralised::begin_step(step, factor);
    if (!overlap_) return;
    exchanging([&] {
      trackers_->begin(step, y_);
      weight_mixer().begin(step, weights());
    });
  }
  void before_update() override {
    Tensor& g = parameters().gradients();
    if (overlap_) {
      exchanging([&] {
        trackers_->finish(y_);
        weight_mixer().finish(weights());
      });
      parameters().refresh_shadow();
      mix_state();
    } else if (order_ == "cta") {
      exchanging([&] { trackers_->mix(step(), y_); });
      mix_weights();
    }
    ops::scale(-1, m_, {y_, true});
    ops::lerp(1 - momentum_, g, m_);
    ops::scale(1, m_, {y_, true});
    if (order_ == "atc") exchanging([&] { trackers_->mix(step(), y_); });
    ops::copy(y_, g);
  }
  void after_update() override {
    if (order_ == "atc") mix_weights();
  }

  std::vector<State> state() override {
    std::vector<State> all = Decentralised::state();
    all.push_back({"strategy.tracker", y_, true});
    all.push_back({"strategy.tracked", m_, true});
    return all;
  }

  // |mean y - mean m| over the root mean of |m|^2: 0 but for rounding.
  std::vector<std::pair<std::string, double>> health() override {
    Tensor squares({1}, DType::f64, y_.device());
    ops::sum_of_squares(mean_error(), squares);
    double error = item(squares);
    ops::sum_of_squares(m_, squares);
    Tensor all = to(Device::cpu, squares);
    all_reduce(c(), "tracker error", {all});
    double size = item(all) / double(c().size());
    return {{"tracker_error", size > 0 ? std::sqrt(error / size) : 0}};
  }

 private:
  std::vector<std::string> other_kinds() const override { return {kTrackers}; }
  int remembers() const override { return 2; }
  void restart() override {
    if (!y_) y_ = like_weights(), m_ = like_weights();
    ops::fill(y_, 0);
    ops::fill(m_, 0);
  }

  // mean over nodes of (m - y)
  Tensor mean_error() const {
    Tensor difference = like_weights();
    ops::scale(1.0 / double(c().size()), m_, {difference});
    ops::scale(-1.0 / double(c().size()), y_, {difference, true});
    all_reduce(c(), "tracker error", {difference});
    return difference;
  }
  // Where nodes were lost or came back, y and m no longer have the same sum; the mean of what is
  // missing is added everywhere, which keeps what the trackers know.
  void repair() override { ops::scale(1, mean_error(), {y_, true}); }

  double momentum_ = 0;
  std::string order_ = "atc";
  bool overlap_ = false;
  Mixer* trackers_ = nullptr;
  Tensor y_, m_;
};

}  // namespace

std::unique_ptr<Strategy> make_gradient_tracking() { return std::make_unique<GradientTracking>(); }

}  // namespace murmur
