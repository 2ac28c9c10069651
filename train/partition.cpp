// train/partition.cpp - dealing documents out to nodes, and how different the nodes became.
#include "train/partition.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "tensor/check.h"
#include "tensor/nearest.h"
#include "tensor/ops/philox.h"
#include "train/dirichlet.h"

namespace murmur {
namespace {

int64_t tokens_of(const NodeShare& share) {
  int64_t tokens = 0;
  for (const TokenRange& range : share) tokens += range.size();
  return tokens;
}

void to_text_order(NodeShare& share) {
  std::sort(share.begin(), share.end(),
            [](const TokenRange& a, const TokenRange& b) { return a.begin < b.begin; });
}

// The largest document to the node with the fewest tokens, and so on: no node has more than the
// mean and one document.
std::vector<NodeShare> deal_whole(std::vector<Document> documents, int64_t nodes) {
  std::stable_sort(documents.begin(), documents.end(), [](const Document& a, const Document& b) {
    return a.tokens.size() > b.tokens.size();
  });
  std::vector<NodeShare> shares(size_t(nodes), NodeShare{});
  std::vector<int64_t> tokens(size_t(nodes), 0);
  for (const Document& document : documents) {
    const auto lightest = std::min_element(tokens.begin(), tokens.end());  // the first of several
    *lightest += document.tokens.size();
    shares[size_t(lightest - tokens.begin())].push_back(document.tokens);
  }
  for (NodeShare& share : shares) to_text_order(share);
  return shares;
}

std::vector<NodeShare> deal_parts(const std::vector<Document>& documents, double alpha,
                                  int64_t nodes, uint64_t seed) {
  std::vector<NodeShare> shares(size_t(nodes), NodeShare{});
  for (size_t d = 0; d < documents.size(); d++) {
    const TokenRange all = documents[d].tokens;
    const std::vector<double> proportions = dirichlet(alpha, nodes, seed, d);
    double sum = 0;
    int64_t begin = all.begin;
    for (size_t node = 0; node < shares.size(); node++) {
      sum += proportions[node];
      const bool last = node + 1 == shares.size();
      const int64_t cut = all.begin + std::llround(sum * double(all.size()));
      const int64_t end = last ? all.end : std::min(cut, all.end);
      if (end > begin) shares[node].push_back({begin, end});
      begin = end;
    }
  }
  return shares;
}

// Gives nodes with fewer than `least` tokens what they lack. There are enough for all.
void level(std::vector<NodeShare>& shares, int64_t least) {
  auto poorer = [](const NodeShare& a, const NodeShare& b) { return tokens_of(a) < tokens_of(b); };
  for (NodeShare& poor : shares) {
    for (int64_t missing; (missing = least - tokens_of(poor)) > 0;) {
      NodeShare& rich = *std::max_element(shares.begin(), shares.end(), poorer);
      TokenRange& from = *std::max_element(
          rich.begin(), rich.end(),
          [](const TokenRange& a, const TokenRange& b) { return a.size() < b.size(); });
      const int64_t moved = std::min({missing, from.size(), tokens_of(rich) - least});
      check(moved > 0, "partition: no node has tokens to spare");
      from.end -= moved;
      poor.push_back({from.end, from.end + moved});
      std::erase_if(rich, [](const TokenRange& range) { return range.size() == 0; });
    }
    to_text_order(poor);
  }
}

uint64_t seed_of(uint64_t seed, int64_t node) {
  constexpr uint64_t kKey = 0x6e6f64656f726465;  // apart from other numbers of the same seed
  const Philox p(seed ^ kKey, uint64_t(node), 0);
  return uint64_t(p.x[0]) << 32 | p.x[1];
}

// How often each token id comes, as a share of all.
std::vector<double> frequencies(const TokenStream& stream, int64_t vocab_size) {
  const std::vector<int64_t> count = stream.counts(vocab_size);
  std::vector<double> share(count.begin(), count.end());
  for (double& x : share) x /= double(stream.size());
  return share;
}

}  // namespace

// --- the rule ---------------------------------------------------------------------------------

PartitionRule partition_rule(const std::string& text) {
  constexpr double kSmallest = 1e-3, kLargest = 1e6;
  const size_t colon = text.find(':');
  std::string name = text.substr(0, colon);
  std::replace(name.begin(), name.end(), '_', '-');
  if (name == "dirichlet") {
    const std::string number = colon == text.npos ? "" : text.substr(colon + 1);
    const char* end = number.data() + number.size();
    double alpha = 0;
    const auto [stop, error] = std::from_chars(number.data(), end, alpha);
    if (error == std::errc() && stop == end && alpha >= kSmallest && alpha <= kLargest)
      return {PartitionRule::dirichlet, alpha};
    throw InputError(fmt::format(
        "partition: '{}' needs a number from {} to {} after a colon, as in dirichlet:0.1", text,
        kSmallest, kLargest));
  }
  if (colon == text.npos && name == "iid") return {PartitionRule::iid};
  if (colon == text.npos && name == "by-document") return {PartitionRule::by_document};
  const std::vector<std::string> known = {"iid", "by-document", "dirichlet"};
  const std::string meant = nearest(name, known);
  throw InputError(fmt::format("partition: there is no '{}'; did you mean '{}'?", text,
                               meant == "dirichlet" ? "dirichlet:0.1" : meant));
}

std::string text(const PartitionRule& rule) {
  if (rule.kind == PartitionRule::dirichlet) return fmt::format("dirichlet:{}", rule.alpha);
  return rule.kind == PartitionRule::iid ? "iid" : "by-document";
}

// --- the shares -------------------------------------------------------------------------------

std::vector<NodeShare> deal(const PartitionRule& rule, const std::vector<Document>& documents,
                            int64_t nodes, uint64_t seed, int64_t least) {
  check(rule.kind != PartitionRule::iid && nodes > 0, "partition: nothing to deal out");
  const int64_t count = int64_t(documents.size());
  if (rule.kind == PartitionRule::by_document) {
    if (count < nodes) {
      throw InputError(fmt::format(
          "partition: by-document needs a document for each of {} nodes, and the training text has "
          "only {}; prepare it as more files, take fewer nodes, or cut documents with "
          "dirichlet:0.1",
          nodes, count));
    }
    std::vector<NodeShare> shares = deal_whole(documents, nodes);
    for (size_t node = 0; node < shares.size(); node++) {
      if (tokens_of(shares[node]) >= least) continue;
      throw InputError(fmt::format(
          "partition: the documents of node {} have {} tokens, it needs {}, for two sequences; "
          "take fewer nodes, a smaller block size, or dirichlet:0.1",
          node, tokens_of(shares[node]), least));
    }
    return shares;
  }
  int64_t all = 0;
  for (const Document& document : documents) all += document.tokens.size();
  if (all < nodes * least) {
    throw InputError(fmt::format(
        "partition: {} training tokens are too few for {} nodes, each needs {}, for two sequences; "
        "take fewer nodes, a smaller block size, or more text",
        all, nodes, least));
  }
  std::vector<NodeShare> shares = deal_parts(documents, rule.alpha, nodes, seed);
  level(shares, least);
  return shares;
}

Partition::Partition(const Dataset& data, const PartitionRule& rule, int64_t nodes, uint64_t seed,
                     int64_t block_size)
    : rule_(rule),
      documents_(training_documents(data)),
      shares_(deal(rule, documents_, nodes, seed, 3 * block_size)),  // two windows and a phase
      vocab_size_(data.vocab_size()),
      block_size_(block_size),
      seed_(seed) {
  for (const NodeShare& share : shares_)
    streams_.push_back(data.stream(Split::train).select(share));
}

Batch Partition::batch(int64_t node, int64_t first_sequence, int64_t batch_size) const {
  return shuffled_batch(stream(node), seed_of(seed_, node), first_sequence, batch_size,
                        block_size_);
}

// --- what came of it --------------------------------------------------------------------------

double Partition::heterogeneity() const {
  const double nodes = double(streams_.size());
  std::vector<std::vector<double>> of_node;
  for (const TokenStream& stream : streams_) of_node.push_back(frequencies(stream, vocab_size_));
  double sum = 0;
  for (size_t id = 0; id < size_t(vocab_size_); id++) {
    double mean = 0;
    for (const auto& own : of_node) mean += own[id] / nodes;
    for (const auto& own : of_node) sum += std::fabs(own[id] - mean);
  }
  return sum / 2 / nodes;
}

std::string Partition::summary() const {
  auto [least, most] = std::minmax_element(
      streams_.begin(), streams_.end(),
      [](const TokenStream& a, const TokenStream& b) { return a.size() < b.size(); });
  return fmt::format("{} over {} node{}: {} to {} tokens each, heterogeneity {:.4f}", text(rule_),
                     streams_.size(), streams_.size() == 1 ? "" : "s", least->size(), most->size(),
                     heterogeneity());
}

std::string Partition::table() const {
  std::string lines = "  node       tokens   share  documents\n";
  for (size_t node = 0; node < shares_.size(); node++) {
    std::map<size_t, int64_t> part;  // document -> its tokens with this node
    for (const TokenRange& range : shares_[node]) {
      const auto next = std::upper_bound(
          documents_.begin(), documents_.end(), range.begin,
          [](int64_t at, const Document& document) { return at < document.tokens.begin; });
      part[size_t(next - documents_.begin()) - 1] += range.size();
    }
    const auto [largest, tokens] = *std::max_element(
        part.begin(), part.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    const int64_t all = documents_.back().tokens.end, here = streams_[node].size();
    lines += fmt::format("  {:>4} {:>12} {:>6.2f}%  {:>9}, {} tokens from {}\n", node, here,
                         100 * double(here) / double(all), part.size(), tokens,
                         documents_[largest].name);
  }
  return lines;
}

}  // namespace murmur
