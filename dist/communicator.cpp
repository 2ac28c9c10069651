// dist/communicator.cpp - what all transports share: counting, deadlines, the words of an error.
#include "dist/communicator.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <thread>
#include <utility>

namespace murmur {

Traffic& Traffic::operator+=(const Traffic& other) {
  bytes += other.bytes;
  messages += other.messages;
  rounds += other.rounds;
  return *this;
}

Communicator::Communicator(int node, int nodes, double deadline_seconds)
    : node_(node),
      nodes_(nodes),
      rank_(node),
      members_(size_t(nodes)),
      deadline_(deadline_seconds) {
  std::iota(members_.begin(), members_.end(), 0);
}

void Communicator::set_members(std::vector<int> nodes) {
  std::sort(nodes.begin(), nodes.end());
  auto own = std::find(nodes.begin(), nodes.end(), node_);
  rank_ = own == nodes.end() ? -1 : int(own - nodes.begin());
  members_ = std::move(nodes);
  generation_++;
}

std::vector<int> Communicator::agree_on_survivors() {
  std::vector<int> found = find_survivors();
  if (2 * found.size() <= members_.size()) {
    throw Error(fmt::format(
        "step {}: {} of {} ranks are left, no majority: the run ends; --resume goes on from the "
        "last checkpoint",
        step_, found.size(), members_.size()));
  }
  return found;
}

std::vector<int> Communicator::find_survivors() {
  throw Error("this transport cannot go on without a rank; use mpi");
}

std::unique_ptr<Pending> Communicator::start(const std::string& what, std::vector<Message> sends,
                                             std::vector<Message> receives) {
  Traffic& traffic = traffic_[what.substr(0, what.find(':'))];
  for (std::vector<Message>* messages : {&sends, &receives}) {
    for (Message& m : *messages) {
      check(m.peer >= 0 && m.peer < size() && m.peer != rank_ && rank_ >= 0, [&] {
        return fmt::format("exchange: {}: rank {} of {} cannot talk to rank {}", what, rank_,
                           size(), m.peer);
      });
      check(m.tensor.contiguous(), "exchange: rows of a message do not touch");
      m.peer = members_[size_t(m.peer)];
    }
  }
  for (const Message& m : sends) {
    traffic.bytes += int64_t(m.tensor.bytes());
    traffic.messages++;
  }
  traffic.rounds += size() > 1;
  if (delay_ > 0) std::this_thread::sleep_for(std::chrono::duration<double>(delay_));
  return post(sends, receives);
}

void Communicator::wait(Pending& pending, const std::string& what, const std::set<int>& but) {
  auto deadline = std::chrono::steady_clock::now() +
                  std::chrono::duration_cast<std::chrono::steady_clock::duration>(deadline_);
  std::vector<int> missing = pending.wait_until(deadline, but);
  if (missing.empty()) return;
  std::string why = reason(missing[0]);
  if (why.empty())
    why = fmt::format("nothing for {} s; still running? (--deadline)", deadline_.count());
  bool one = missing.size() == 1;
  std::string text =
      fmt::format("rank {}: step {}: {}: {} {} {} missing: {}", node_, step_, what,
                  one ? "rank" : "ranks", fmt::join(missing, ", "), one ? "is" : "are", why);
  if (survives_) throw RankLost(text);
  throw Error(text);
}

void Communicator::exchange(const std::string& what, std::vector<Message> sends,
                            std::vector<Message> receives) {
  auto pending = start(what, std::move(sends), std::move(receives));
  wait(*pending, what);
}

void Communicator::exchange_patiently(const std::string& what, std::vector<Message> sends,
                                      std::vector<Message> receives) {
  auto usual = std::exchange(deadline_, std::chrono::hours(24 * 365));
  try {
    exchange(what, std::move(sends), std::move(receives));
  } catch (...) {
    deadline_ = usual;
    throw;
  }
  deadline_ = usual;
}

// Everybody hears from everybody.
void Communicator::barrier() {
  Tensor mine = Tensor::zeros({1}), theirs = Tensor::zeros({size()});
  std::vector<Message> sends, receives;
  for (int peer = 0; peer < size(); peer++) {
    if (peer == rank_) continue;
    sends.push_back({peer, mine});
    receives.push_back({peer, theirs.slice(peer, peer + 1)});
  }
  exchange("barrier", std::move(sends), std::move(receives));
}

Traffic Communicator::total_traffic() const {
  Traffic all;
  for (const auto& [what, traffic] : traffic_) all += traffic;
  return all;
}

}  // namespace murmur
