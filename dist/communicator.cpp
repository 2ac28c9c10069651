// dist/communicator.cpp - what all transports share: counting, deadlines, the words of an error.
#include "dist/communicator.h"

#include <fmt/format.h>

namespace murmur {

Traffic& Traffic::operator+=(const Traffic& other) {
  bytes += other.bytes;
  messages += other.messages;
  rounds += other.rounds;
  return *this;
}

Communicator::Communicator(int rank, int size, double deadline_seconds)
    : rank_(rank), size_(size), deadline_(deadline_seconds) {}

std::unique_ptr<Pending> Communicator::start(const std::string& what, std::vector<Message> sends,
                                             std::vector<Message> receives) {
  Traffic& traffic = traffic_[what.substr(0, what.find(':'))];
  for (const std::vector<Message>* messages : {&sends, &receives}) {
    for (const Message& m : *messages) {
      check(m.peer >= 0 && m.peer < size_ && m.peer != rank_, [&] {
        return fmt::format("exchange: {}: rank {} of {} cannot talk to rank {}", what, rank_, size_,
                           m.peer);
      });
      check(m.tensor.contiguous(), "exchange: rows of a message do not touch");
    }
  }
  for (const Message& m : sends) {
    traffic.bytes += int64_t(m.tensor.bytes());
    traffic.messages++;
  }
  traffic.rounds += size_ > 1;
  return post(sends, receives);
}

void Communicator::wait(Pending& pending, const std::string& what) {
  auto deadline = std::chrono::steady_clock::now() +
                  std::chrono::duration_cast<std::chrono::steady_clock::duration>(deadline_);
  std::vector<int> missing = pending.wait_until(deadline);
  if (missing.empty()) return;
  std::string why = reason(missing[0]);
  if (why.empty())
    why = fmt::format("nothing for {} s; still running? (--deadline)", deadline_.count());
  bool one = missing.size() == 1;
  throw Error(fmt::format("rank {}: step {}: {}: {} {} {} missing: {}", rank_, step_, what,
                          one ? "rank" : "ranks", fmt::join(missing, ", "), one ? "is" : "are",
                          why));
}

void Communicator::exchange(const std::string& what, std::vector<Message> sends,
                            std::vector<Message> receives) {
  auto pending = start(what, std::move(sends), std::move(receives));
  wait(*pending, what);
}

// Everybody hears from everybody.
void Communicator::barrier() {
  Tensor mine = Tensor::zeros({1}), theirs = Tensor::zeros({size_});
  std::vector<Message> sends, receives;
  for (int peer = 0; peer < size_; peer++) {
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
