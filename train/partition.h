// train/partition.h - which node reads which part of the training text, where nodes read different
// texts.
//
//   iid              no parts: every batch is cut over the nodes (Dataset::batch)
//   by-document      whole documents: the largest first, each to the node with the fewest tokens
//   dirichlet:ALPHA  of every document a part; their sizes come from Dirichlet(ALPHA, ..., ALPHA),
//                    drawn anew for each document. ALPHA 100: all nodes read much the same;
//                    0.1: nearly all of a document is with one node or two
//
// Every token of the training split belongs to exactly one node. Who reads what follows from
// documents, nodes, seed and block size alone, so ranks agree on it without a message.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/data.h"
#include "train/prepare.h"

namespace murmur {

// What --partition says.
struct PartitionRule {
  enum Kind { iid, by_document, dirichlet };
  Kind kind = iid;
  double alpha = 0;  // of dirichlet
};
PartitionRule partition_rule(const std::string& text);  // InputError names the nearest
std::string text(const PartitionRule& rule);            // "by-document", "dirichlet:0.1"

using NodeShare = std::vector<TokenRange>;  // of one node, in the order of the text

// A share for each node, of at least `least` tokens: by-document refuses what has less; with
// dirichlet such a node gets what it lacks from the end of the largest part of the richest node.
std::vector<NodeShare> deal(const PartitionRule& rule, const std::vector<Document>& documents,
                            int64_t nodes, uint64_t seed, int64_t least);

// The training split of a folder, dealt out. Every node has enough for two sequences an epoch.
class Partition {
 public:
  Partition(const Dataset& data, const PartitionRule& rule, int64_t nodes, uint64_t seed,
            int64_t block_size);

  // A node's share as one text, and its sequences in an order of the node's own (shuffled_batch).
  const TokenStream& stream(int64_t node) const { return streams_[size_t(node)]; }
  Batch batch(int64_t node, int64_t first_sequence, int64_t batch_size) const;

  // How much nodes differ: half the sum over all token ids of |frequency with the node - mean of
  // the nodes' frequencies|, and of that the mean over nodes. 0: they read the same; at most
  // 1 - 1 / nodes.
  double heterogeneity() const;

  std::string summary() const;  // one line
  std::string table() const;    // a row for each node

 private:
  PartitionRule rule_;
  std::vector<Document> documents_;
  std::vector<NodeShare> shares_;
  std::vector<TokenStream> streams_;
  int64_t vocab_size_, block_size_;
  uint64_t seed_;
};

}  // namespace murmur
