// dist/communicator.h - messages between ranks. Two things only: exchange() with some of the
// others, and a barrier. Collectives (dist/collectives.h) are written once over them.
//
// Every wait has a deadline. An Error of a wait names the rank that is missing, the step, and what
// was being sent.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace murmur {

// A tensor that goes to `peer` or is to be filled by it. Contiguous, and of the same size and type
// at both ends. Messages of a pair of ranks arrive in the order in which they were started.
struct Message {
  int peer;
  Tensor tensor;
};

// Messages under way. What is sent must stay as it is until they are done. Whoever leaves them
// before that, at both ends, loses these and no others (on nccl: all that come).
class Pending {
 public:
  virtual ~Pending() = default;
  virtual bool poll() = 0;  // moves things along without waiting; are they done?
  // Returns when they are done, those of the nodes `but` aside, or at the deadline: then the ranks
  // that are missing.
  virtual std::vector<int> wait_until(std::chrono::steady_clock::time_point deadline,
                                      const std::set<int>& but) = 0;
};

// Counted where a message is started, in the same way for every transport.
struct Traffic {
  int64_t bytes = 0;     // sent by this rank
  int64_t messages = 0;  // sent by this rank
  int64_t rounds = 0;    // exchanges one after the other
  Traffic& operator+=(const Traffic& other);
};

// Thrown by a wait where the run is to go on without the ranks that are missing (survive()).
struct RankLost : Error {
  using Error::Error;
};

// Ranks are numbers among the members: all nodes at first, fewer when some were lost. A node keeps
// its number for ever.
class Communicator {
 public:
  Communicator(int node, int nodes, double deadline_seconds);
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;

  int rank() const { return rank_; }  // -1: not a member now
  int size() const { return int(members_.size()); }
  int node() const { return node_; }
  int nodes() const { return nodes_; }                          // at the start
  const std::vector<int>& members() const { return members_; }  // nodes, ascending

  // From now on messages travel among these nodes. All of them call it, with the same nodes, when
  // none waits for another; what is still under way is received by nobody but who holds its
  // Pending.
  void set_members(std::vector<int> nodes);
  // What is missing then may still arrive: it is received into tensors that are nothing else.
  // A rank that is missing at the deadline is a RankLost, not the end; then all members that are
  // left call agree_on_survivors, and get the same answer: nodes, this one among them. An Error
  // where they are no majority.
  void survive() { survives_ = true; }
  std::vector<int> agree_on_survivors();

  // `what` is sent: "gradients", or "gradients: block 3". It names the messages in errors; what
  // comes before the colon, in traffic().
  std::unique_ptr<Pending> start(const std::string& what, std::vector<Message> sends,
                                 std::vector<Message> receives);
  // Error at the deadline. `but`: nodes that are not waited for.
  void wait(Pending& pending, const std::string& what, const std::set<int>& but = {});
  void exchange(const std::string& what, std::vector<Message> sends, std::vector<Message> receives);
  void barrier();
  // As exchange, without a deadline.
  void exchange_patiently(const std::string& what, std::vector<Message> sends,
                          std::vector<Message> receives);

  // A transport with a better way to add up a tensor over all ranks takes it, counts what the usual
  // algorithms would send, and returns true. The order of that sum is its own.
  virtual bool native_all_reduce(const std::string& /*what*/, Tensor& /*x*/) { return false; }

  void at_step(int64_t step) { step_ = step; }      // for errors
  void delay(double seconds) { delay_ = seconds; }  // every message, for experiments
  const std::map<std::string, Traffic>& traffic() const { return traffic_; }
  Traffic total_traffic() const;
  void reset_traffic() { traffic_.clear(); }

 protected:
  virtual std::unique_ptr<Pending> post(const std::vector<Message>& sends,
                                        const std::vector<Message>& receives) = 0;
  // The rest of the sentence "rank 2 is missing": why, where the transport knows.
  virtual std::string reason(int /*peer*/) const { return {}; }
  void count(const std::string& what, const Traffic& traffic) { traffic_[what] += traffic; }
  // Messages name nodes here, not ranks.
  bool survives() const { return survives_; }
  int generation() const { return generation_; }  // how often members have changed
  virtual std::vector<int> find_survivors();

 private:
  const int node_, nodes_;
  int rank_;
  std::vector<int> members_;
  int generation_ = 0;
  bool survives_ = false;
  std::chrono::duration<double> deadline_;
  double delay_ = 0;
  int64_t step_ = 0;
  std::map<std::string, Traffic> traffic_;
};

}  // namespace murmur
