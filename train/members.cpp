// train/members.cpp - nodes that are lost, come back, or are late: as a script says
// (dist/faults.h), or because they have died.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <numeric>
#include <set>
#include <thread>

#include "dist/collectives.h"
#include "train/loop.h"

namespace murmur {

// Nodes that are lost or come back at this step, and those that are slow in it.
void Trainer::follow_script(int64_t number) {
  std::vector<int> members = faults_.members(number, c_.nodes());
  if (faults_.loses() && members != c_.members())
    change_members(members, number, "as the script says");
  if (c_.rank() < 0 || stop_) return;
  leave_out(number);
  c_.delay(faults_.delay(number, c_.node()));
  double late = faults_.straggle(number, c_.node());
  if (late > 0) std::this_thread::sleep_for(std::chrono::duration<double>(late));
}

void Trainer::leave_out(int64_t number) {
  std::set<int> ranks;
  for (int node : faults_.skipped(number)) {
    auto at = std::find(c_.members().begin(), c_.members().end(), node);
    if (at != c_.members().end()) ranks.insert(int(at - c_.members().begin()));
  }
  strategy_->leave_out(ranks);
}

void Trainer::change_members(std::vector<int> nodes, int64_t number, const std::string& why) {
  const std::vector<int> before = c_.members();
  auto not_in = [](const std::vector<int>& some, const std::vector<int>& others) {
    std::vector<int> left;
    std::set_difference(some.begin(), some.end(), others.begin(), others.end(),
                        std::back_inserter(left));
    return left;
  };
  std::vector<int> lost = not_in(before, nodes), back = not_in(nodes, before);
  if (c_.rank() >= 0 && !stop_) {
    finish(0);
    log_finished();
    if (stop_) save(number - 1), stopped_after(number - 1);  // a signal came meanwhile
    c_.barrier();  // the log is complete before another opens it
  }
  c_.set_members(nodes);
  if (!leads()) log_.reset();
  if (c_.rank() < 0) return;
  for (int node : back) take_in(node, not_in(nodes, back)[0]);
  if (stop_) return;
  bool joined = std::count(back.begin(), back.end(), c_.node()) > 0;
  std::string done = strategy_->members_changed(joined);
  auto named = [](const std::vector<int>& list, const std::string& what) {
    return list.empty() ? ""
                        : fmt::format("node{} {} {}; ", list.size() > 1 ? "s" : "",
                                      fmt::join(list, ", "), what);
  };
  say(fmt::format("step {:>6}  {}{}{} of {} go on, {}; {}", number, named(lost, "lost"),
                  named(back, "back"), nodes.size(), c_.nodes(), done, why));
}

// The weights and state of `source` go to a node that is back; or that the run was stopped
// meanwhile.
void Trainer::take_in(int node, int source) {
  if (c_.node() != source && c_.node() != node) return;
  const std::vector<int>& members = c_.members();
  auto rank_of = [&](int n) {
    return int(std::find(members.begin(), members.end(), n) - members.begin());
  };
  auto move = [&](const Tensor& x) {
    if (c_.node() == source)
      c_.exchange("weights for a node that is back", {{rank_of(node), x}}, {});
    else
      c_.exchange_patiently("weights for a node that is back", {}, {{rank_of(source), x}});
  };
  Tensor stopped = Tensor::of({double(stop_)}, {1}, DType::f64);
  move(stopped);
  stop_ = item(stopped) > 0;
  if (stop_) return;
  move(replica_.model.parameters.values());
  for (const Update::NamedState& s : replica_.update.named_state()) move(s.tensor);
  replica_.model.parameters.refresh_shadow();
}

// Somebody is gone. Those that are left find out who they are, do alone what of a step they still
// have to do, and those behind whole steps, and go on together. Returns the step all have done.
int64_t Trainer::recover(int64_t number) {
  strategy_->give_up();
  while (true) {
    try {
      auto began = std::chrono::steady_clock::now();
      std::vector<int> left = c_.agree_on_survivors();
      std::vector<int> lost;
      for (int node : c_.members())
        if (!std::count(left.begin(), left.end(), node)) lost.push_back(node);
      c_.set_members(left);
      Tensor furthest =
          Tensor::of({double(number), under_way_.empty() ? double(number + 1)
                                                         : double(under_way_.front().row.step)},
                     {2}, DType::f64);
      all_reduce_max(c_, "step", furthest);
      while (number < int64_t(furthest.data<double>()[0])) under_way_.push_back(launch(++number));
      // What only some have put into the log is over.
      while (!under_way_.empty() &&
             under_way_.front().row.step < int64_t(furthest.data<double>()[1]))
        under_way_.pop_front();
      std::string done = strategy_->members_changed(false);
      std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - began;
      say(fmt::format(
          "step {:>6}  node{} {} lost: nothing for {} s; {} of {} go on, {}; agreed in {:.2f} s",
          number, lost.size() > 1 ? "s" : "", fmt::join(lost, ", "), config_.deadline, left.size(),
          c_.nodes(), done, seconds.count()));
      return number;
    } catch (const RankLost&) {  // another one
    }
  }
}

// Nodes that were lost by the script wait for the end of the others. The last step that one has
// done.
int64_t Trainer::wait_for_all(int64_t step) {
  std::vector<int> all(size_t(c_.nodes()));
  std::iota(all.begin(), all.end(), 0);
  c_.set_members(all);
  for (int node = 1; node < c_.nodes(); node++) {
    Tensor end = Tensor::of({double(step)}, {1}, DType::f64);
    bool receives = c_.rank() == 0, sends = c_.rank() == node;
    if (receives) c_.exchange_patiently("the end", {}, {{node, end}});
    if (sends) c_.exchange_patiently("the end", {{0, end}}, {});
    step = std::max(step, int64_t(item(end)));
  }
  return step;
}

}  // namespace murmur
