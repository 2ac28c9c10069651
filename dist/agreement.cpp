// dist/agreement.cpp - what to answer to whom.
#include "dist/agreement.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace murmur {
namespace {

enum Kind : int { kHere, kPrepare, kPromise, kAccept, kAccepted, kVerdict };

constexpr double kPatience = 0.7;  // seconds in which a node that is left is heard
constexpr double kTurn = 0.3;      // between the first proposals of two nodes
constexpr double kAgain = 1;       // between two proposals of one
constexpr int kBallots = 1 << 12;  // nodes at most: ballot = round * kBallots + node

}  // namespace

Agreement::Agreement(int node, const std::vector<int>& members)
    : node_(node), members_(members), heard_{node} {
  send_all({kHere});
}

void Agreement::send(int to, std::vector<int> words) {
  if (to == node_)
    hear(node_, words);
  else
    letters_.push_back({to, std::move(words)});
}

void Agreement::send_all(const std::vector<int>& words) {
  for (int to : members_) send(to, words);
}

std::vector<Agreement::Letter> Agreement::take_letters() { return std::exchange(letters_, {}); }

// The lowest of those who are heard proposes first: as soon as all are, or at the end of patience.
void Agreement::at(double seconds) {
  double place = double(std::distance(heard_.begin(), heard_.find(node_)));
  double due = (heard_.size() == members_.size() ? 0 : kPatience) + place * kTurn;
  if (verdict_ || seconds < std::max(due, next_) || !majority(heard_.size())) return;
  next_ = seconds + kAgain;
  ballot_ = (std::max(promised_, ballot_) / kBallots + 1) * kBallots + node_;
  best_ = 0;
  promises_.clear();
  votes_.clear();
  proposal_.clear();
  send_all({kPrepare, ballot_});
}

void Agreement::hear(int from, const std::vector<int>& words) {
  heard_.insert(from);
  if (verdict_) return;
  const Kind kind = Kind(words[0]);
  const int ballot = words.size() > 1 ? words[1] : 0;
  switch (kind) {
    case kHere:
      break;
    case kPrepare: {
      if (ballot <= promised_) break;
      promised_ = ballot;
      std::vector<int> promise = {kPromise, ballot, accepted_in_};
      promise.insert(promise.end(), accepted_.begin(), accepted_.end());
      send(from, promise);
      break;
    }
    case kPromise: {
      if (ballot != ballot_ || !proposal_.empty()) break;
      promises_.insert(from);
      if (words[2] > best_) {
        best_ = words[2];
        best_nodes_.assign(words.begin() + 3, words.end());
      }
      if (!majority(promises_.size())) break;
      proposal_ = best_ ? best_nodes_ : std::vector<int>(heard_.begin(), heard_.end());
      std::vector<int> accept = {kAccept, ballot};
      accept.insert(accept.end(), proposal_.begin(), proposal_.end());
      send_all(accept);
      break;
    }
    case kAccept:
      if (ballot < promised_) break;
      promised_ = accepted_in_ = ballot;
      accepted_.assign(words.begin() + 2, words.end());
      send(from, {kAccepted, ballot});
      break;
    case kAccepted: {
      if (ballot != ballot_) break;
      votes_.insert(from);
      if (!majority(votes_.size())) break;
      std::vector<int> verdict = {kVerdict, ballot};
      verdict.insert(verdict.end(), proposal_.begin(), proposal_.end());
      send(node_, verdict);
      break;
    }
    case kVerdict:
      verdict_.emplace(words.begin() + 2, words.end());
      for (int to : members_) {
        if (to != node_) send(to, words);
      }
      break;
  }
}

}  // namespace murmur
