// tests/train/partition_test.cpp - every token of the training text goes to exactly one node, in
// whole documents or in random parts, and a node reads nothing but its own.
#include "train/partition.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "tests/train/temporary_folder.h"
#include "train/dirichlet.h"
#include "train/position.h"

using namespace murmur;

namespace {

const PartitionRule kWhole = {PartitionRule::by_document};
PartitionRule parts(double alpha) { return {PartitionRule::dirichlet, alpha}; }

std::vector<Document> documents(const std::vector<int64_t>& sizes) {
  std::vector<Document> list;
  int64_t begin = 0;
  for (int64_t size : sizes) {
    list.push_back({"document-" + std::to_string(list.size()), {begin, begin + size}});
    begin += size;
  }
  return list;
}

// Sizes between 1 and about 3000, as books are: most of them small.
std::vector<Document> some_documents(size_t count) {
  std::vector<int64_t> sizes;
  for (size_t i = 0; i < count; i++) sizes.push_back(1 + int64_t(i * i * 7919 + i * 31) % 3000);
  return documents(sizes);
}

int64_t tokens_of(const NodeShare& share) {
  int64_t tokens = 0;
  for (const TokenRange& range : share) tokens += range.size();
  return tokens;
}

std::vector<int64_t> sizes_of(const std::vector<NodeShare>& shares) {
  std::vector<int64_t> sizes;
  for (const NodeShare& share : shares) sizes.push_back(tokens_of(share));
  return sizes;
}

bool same(const std::vector<NodeShare>& a, const std::vector<NodeShare>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](TokenRange p, TokenRange q) {
      return p.begin == q.begin && p.end == q.end;
    });
  });
}

// Each share in text order and without empty ranges, all of them together every token once.
void check_all_dealt(const std::vector<NodeShare>& shares, const std::vector<Document>& from) {
  std::vector<TokenRange> all;
  for (const NodeShare& share : shares) {
    for (size_t i = 0; i < share.size(); i++) {
      REQUIRE(share[i].size() > 0);
      if (i > 0) REQUIRE(share[i - 1].end <= share[i].begin);
    }
    all.insert(all.end(), share.begin(), share.end());
  }
  std::sort(all.begin(), all.end(), [](auto a, auto b) { return a.begin < b.begin; });
  int64_t end = 0;
  for (const TokenRange& range : all) {
    REQUIRE(range.begin == end);
    end = range.end;
  }
  CHECK(end == from.back().tokens.end);
}

// A folder in which all characters differ, so that a token says where it comes from: its position
// in the joined text. `sizes` characters in each document; the last fifth of all is validation.
struct Positions {
  TemporaryFolder folder;
  explicit Positions(const std::vector<int64_t>& sizes, int64_t tokens_per_shard = 100000) {
    std::vector<std::string> files;
    uint32_t c = 0x4e00;
    for (int64_t size : sizes) {
      std::string text;
      for (int64_t i = 0; i < size; i++, c++)
        text += {char(0xe0 | (c >> 12)), char(0x80 | ((c >> 6) & 0x3f)), char(0x80 | (c & 0x3f))};
      files.push_back(folder / (std::to_string(files.size()) + ".txt"));
      put_bytes(files.back(), text);
    }
    prepare_data(files, "char", folder / "data", 0.2, tokens_per_shard);
  }
  Dataset open() const { return Dataset(folder / "data"); }
};

std::vector<int32_t> all_tokens(const TokenStream& stream) {
  std::vector<int32_t> tokens(size_t(stream.size()), 0);
  stream.copy(0, stream.size(), tokens.data());
  return tokens;
}

std::vector<int32_t> values(const Tensor& x) {
  return {x.data<int32_t>(), x.data<int32_t>() + x.numel()};
}

}  // namespace

// --- the rule ---------------------------------------------------------------------------------

TEST_CASE("a rule is read from text, and what is wrong with it is said") {
  for (const char* rule : {"iid", "by-document", "dirichlet:0.1", "dirichlet:1", "dirichlet:1000"})
    CHECK(text(partition_rule(rule)) == rule);
  CHECK(text(partition_rule("by_document")) == "by-document");
  CHECK(text(partition_rule("dirichlet:0.50")) == "dirichlet:0.5");
  CHECK(text(partition_rule(text(partition_rule("dirichlet:1e6")))) ==
        text(partition_rule("dirichlet:1000000")));
  auto error = [](const std::string& rule) {
    return input_error_of([&] { partition_rule(rule); });
  };
  CHECK(says(error("by-documnt"), "partition: there is no 'by-documnt'", "'by-document'"));
  CHECK(says(error("by-document:2"), "'by-document:2'", "'by-document'"));
  CHECK(says(error("idd"), "'idd'", "'iid'"));
  CHECK(says(error(""), "''", "did you mean"));
  CHECK(says(error("dirichelt:0.3"), "'dirichelt:0.3'", "'dirichlet:0.1'"));
  for (const char* rule : {"dirichlet", "dirichlet:", "dirichlet:x", "dirichlet:0", "dirichlet:-1",
                           "dirichlet:nan", "dirichlet:inf", "dirichlet:1 ", "dirichlet:1e9"}) {
    CAPTURE(rule);
    CHECK(says(error(rule), rule, "from 0.001 to 1000000"));
  }
}

// --- whole documents --------------------------------------------------------------------------

TEST_CASE("by-document: the largest document to the lightest node, the lower one of several") {
  const auto from = documents({10, 40, 30, 20, 30});
  const std::vector<NodeShare> shares = deal(kWhole, from, 3, 0, 1);
  // 40 -> 0, 30 -> 1, 30 -> 2, 20 -> 1, 10 -> 2; then in the order of the text
  CHECK(same(shares, {{{10, 50}}, {{50, 80}, {80, 100}}, {{0, 10}, {100, 130}}}));
}

TEST_CASE("by-document: whole documents, every token once, no node above the mean and a document") {
  for (size_t count : {8, 9, 66, 500}) {
    const auto from = some_documents(count);
    int64_t largest = 0;
    std::set<int64_t> begins, ends;
    for (const Document& document : from) {
      largest = std::max(largest, document.tokens.size());
      begins.insert(document.tokens.begin);
      ends.insert(document.tokens.end);
    }
    for (int64_t nodes = 1; nodes <= 8; nodes++) {
      CAPTURE(count);
      CAPTURE(nodes);
      const std::vector<NodeShare> shares = deal(kWhole, from, nodes, 5, 1);
      REQUIRE(int64_t(shares.size()) == nodes);
      check_all_dealt(shares, from);
      const auto sizes = sizes_of(shares);
      CHECK(*std::max_element(sizes.begin(), sizes.end()) -
                *std::min_element(sizes.begin(), sizes.end()) <=
            largest);
      for (const NodeShare& share : shares) {
        for (const TokenRange& range : share) {
          CHECK(begins.count(range.begin) == 1);
          CHECK(ends.count(range.end) == 1);
        }
      }
      CHECK(same(shares, deal(kWhole, from, nodes, 6, 1)));  // no chance in it
    }
  }
}

TEST_CASE("by-document refuses fewer documents than nodes, and documents too short to read") {
  auto error = [](const std::vector<int64_t>& sizes, int64_t nodes, int64_t least) {
    return input_error_of([&] { deal(kWhole, documents(sizes), nodes, 0, least); });
  };
  CHECK(says(error({100, 100, 100}, 4, 1), "each of 4 nodes", "only 3; prepare it as more files"));
  CHECK(says(error({100, 100, 20}, 3, 30), "node 2 have 20 tokens, it needs 30", "fewer nodes"));
  CHECK(error({100, 100, 20, 10}, 3, 30) == "");
}

// --- random parts -----------------------------------------------------------------------------

TEST_CASE("dirichlet: mean, variance and sum of the proportions are those of the distribution") {
  constexpr int64_t kParties = 5, kDraws = 4000;
  for (double alpha : {0.1, 0.7, 1.0, 10.0}) {
    CAPTURE(alpha);
    const double variance = 1. / kParties * (1 - 1. / kParties) / (kParties * alpha + 1);
    std::vector<double> sum(kParties, 0), squares(kParties, 0);
    for (uint64_t stream = 0; stream < kDraws; stream++) {
      const std::vector<double> p = dirichlet(alpha, kParties, 11, stream);
      CHECK(std::accumulate(p.begin(), p.end(), 0.) == doctest::Approx(1));
      for (size_t i = 0; i < p.size(); i++) {
        sum[i] += p[i];
        squares[i] += (p[i] - 1. / kParties) * (p[i] - 1. / kParties);
      }
    }
    for (size_t i = 0; i < kParties; i++) {
      CHECK(std::fabs(sum[i] / kDraws - 1. / kParties) < 4 * std::sqrt(variance / kDraws));
      CHECK(squares[i] / kDraws == doctest::Approx(variance).epsilon(0.1));
    }
  }
}

TEST_CASE("dirichlet: a large alpha is even, a small one gives nearly all to one party") {
  double even = 0, skewed = 0;
  for (uint64_t stream = 0; stream < 200; stream++) {
    const std::vector<double> a = dirichlet(1e6, 8, 1, stream), b = dirichlet(1e-3, 8, 1, stream);
    even = std::max(even, *std::max_element(a.begin(), a.end()));
    skewed += *std::max_element(b.begin(), b.end()) / 200;
    for (double p : b) CHECK(std::isfinite(p));
  }
  CHECK(even < 0.126);
  CHECK(skewed > 0.98);
}

TEST_CASE("golden: the proportions never change silently") {
  // From a Python version of Philox and of the formulas in train/dirichlet.cpp.
  auto close = [](const std::vector<double>& got, const std::vector<double>& expected) {
    REQUIRE(got.size() == expected.size());
    for (size_t i = 0; i < got.size(); i++)
      CHECK(got[i] == doctest::Approx(expected[i]).epsilon(1e-12));
  };
  close(dirichlet(0.1, 4, 1337, 2),
        {0.001184331950374165, 1.942318628534432e-12, 0.9988156673970583, 6.506251702831073e-10});
  close(dirichlet(1, 4, 1337, 2),
        {0.1877736685105676, 0.2851926939602333, 0.1870213078972242, 0.3400123296319748});
  close(dirichlet(10, 4, 1337, 2),
        {0.2170296802598717, 0.2432935581446778, 0.3228730927502853, 0.2168036688451652});
}

TEST_CASE("dirichlet: of every document contiguous parts, every token once, the same every time") {
  for (size_t count : {1, 5, 66}) {
    const auto from = some_documents(count + 1);
    for (double alpha : {0.001, 0.1, 1.0, 100.0}) {
      for (int64_t nodes : {1, 2, 3, 8}) {
        CAPTURE(count);
        CAPTURE(alpha);
        CAPTURE(nodes);
        const std::vector<NodeShare> shares = deal(parts(alpha), from, nodes, 42, 0);
        REQUIRE(int64_t(shares.size()) == nodes);
        check_all_dealt(shares, from);
        for (const NodeShare& share : shares) CHECK(share.size() <= from.size());
        CHECK(same(shares, deal(parts(alpha), from, nodes, 42, 0)));
        if (nodes > 1 && count > 1) CHECK(!same(shares, deal(parts(alpha), from, nodes, 43, 0)));
      }
    }
  }
}

TEST_CASE("dirichlet: a node that drew too little takes from the richest, and the rest stays") {
  const auto from = documents({1000, 1000});
  for (uint64_t seed = 0; seed < 50; seed++) {
    const std::vector<NodeShare> drawn = deal(parts(0.01), from, 8, seed, 0),
                                 shares = deal(parts(0.01), from, 8, seed, 60);
    check_all_dealt(shares, from);
    for (int64_t tokens : sizes_of(shares)) CHECK(tokens >= 60);
    for (size_t node = 0; node < 8; node++) {
      if (tokens_of(drawn[node]) < 60) CHECK(tokens_of(shares[node]) == 60);
    }
  }
  // Whole ranges change hands where they are shorter than what is missing.
  std::vector<Document> crumbs = documents(std::vector<int64_t>(100, 1));
  const std::vector<NodeShare> shares = deal(parts(0.001), crumbs, 10, 1, 10);
  check_all_dealt(shares, crumbs);
  CHECK(sizes_of(shares) == std::vector<int64_t>(10, 10));
  CHECK(says(input_error_of([&] { deal(parts(1), from, 8, 1, 251); }),
             "2000 training tokens are too few for 8 nodes", "needs 251"));
}

// --- what a node reads ------------------------------------------------------------------------

TEST_CASE("nodes read all training tokens and no other, each its own, whatever the shards") {
  const std::vector<int64_t> sizes = {300, 50, 420, 7, 200, 333, 190};  // 1500; 1200 to train on
  const Positions whole(sizes), shards(sizes, 37);
  for (const PartitionRule& rule : {kWhole, parts(0.3)}) {
    CAPTURE(text(rule));
    const int64_t B = 5, T = 8;
    const Partition partition(whole.open(), rule, 3, 9, T), same(shards.open(), rule, 3, 9, T);
    std::vector<int32_t> all;
    for (int64_t node = 0; node < 3; node++) {
      const std::vector<int32_t> own = all_tokens(partition.stream(node));
      CHECK(own == all_tokens(same.stream(node)));
      CHECK(std::is_sorted(own.begin(), own.end()));
      all.insert(all.end(), own.begin(), own.end());

      std::set<int32_t> read;
      const int64_t windows = sequences_per_epoch(partition.stream(node), T);
      for (int64_t sequence = 0; sequence < 20 * windows; sequence += B) {
        const Batch batch = partition.batch(node, sequence, B);
        CHECK(values(batch.tokens) == values(same.batch(node, sequence, B).tokens));
        for (int32_t token : values(batch.targets)) read.insert(token);
      }
      CHECK(std::includes(own.begin(), own.end(), read.begin(), read.end()));
      CHECK(int64_t(read.size()) > partition.stream(node).size() - 2 * T);
    }
    std::sort(all.begin(), all.end());
    std::vector<int32_t> expected(1200, 0);
    std::iota(expected.begin(), expected.end(), 0);
    CHECK(all == expected);
  }
}

TEST_CASE("a sequence may begin in one document and end in the next that the node has") {
  const Positions positions({100, 100, 100, 100, 100});
  const Partition partition(positions.open(), kWhole, 2, 1, 16);
  const std::vector<int32_t> own = all_tokens(partition.stream(0));
  REQUIRE(own.size() == 200);  // documents 0 and 2
  CHECK(own[99] == 99);
  CHECK(own[100] == 200);
  bool over_the_join = false;
  const Batch batch = partition.batch(0, 0, sequences_per_epoch(partition.stream(0), 16));
  const std::vector<int32_t> tokens = values(batch.tokens), targets = values(batch.targets);
  for (size_t i = 0; i < tokens.size(); i++) {
    const auto at = std::find(own.begin(), own.end(), tokens[i]);
    REQUIRE(at + 1 < own.end());
    REQUIRE(targets[i] == at[1]);
    over_the_join = over_the_join || (tokens[i] == 99 && targets[i] == 200);
  }
  CHECK(over_the_join);
}

TEST_CASE("every node has an order of its own, which the seed selects") {
  const Positions positions({400, 400, 400});
  const Dataset data = positions.open();
  const Partition partition(data, parts(1000), 2, 1, 8), again(data, parts(1000), 2, 1, 8);
  auto order = [&](const Partition& from, int64_t node) {
    const std::vector<int32_t> own = all_tokens(from.stream(node));
    std::vector<int64_t> begins;
    const std::vector<int32_t> tokens = values(from.batch(node, 0, 20).tokens);
    for (size_t i = 0; i < tokens.size(); i += 8)
      begins.push_back(std::find(own.begin(), own.end(), tokens[i]) - own.begin());
    return begins;
  };
  CHECK(order(partition, 0) == order(again, 0));
  CHECK(order(partition, 0) != order(partition, 1));
  CHECK(order(Partition(data, kWhole, 1, 1, 8), 0) != order(Partition(data, kWhole, 1, 2, 8), 0));
}

TEST_CASE("one node has the whole training text") {
  const Positions positions({200, 300, 100});
  const Dataset data = positions.open();
  for (const PartitionRule& rule : {kWhole, parts(0.1)}) {
    const Partition partition(data, rule, 1, 3, 16);
    CHECK(all_tokens(partition.stream(0)) == all_tokens(data.stream(Split::train)));
    CHECK(partition.heterogeneity() == 0);
  }
}

// --- what is told -----------------------------------------------------------------------------

TEST_CASE("heterogeneity: 0 where nodes read alike, 1 - 1/N where they share no token") {
  TemporaryFolder folder;
  std::vector<std::string> apart, alike;
  for (const char letter : {'a', 'b', 'c', 'd', 'e'}) {
    apart.push_back(folder / (std::string("apart-") + letter));
    put_bytes(apart.back(), std::string(100, letter));
    alike.push_back(folder / (std::string("alike-") + letter));
    put_bytes(alike.back(), std::string(50, 'x') + std::string(50, 'y'));
  }
  prepare_data(apart, "byte", folder / "apart", 0.2);
  prepare_data(alike, "byte", folder / "alike", 0.2);
  const Partition disjoint(Dataset(folder / "apart"), kWhole, 4, 1, 8),
      equal(Dataset(folder / "alike"), kWhole, 4, 1, 8),
      pairs(Dataset(folder / "apart"), kWhole, 2, 1, 8);
  CHECK(disjoint.heterogeneity() == doctest::Approx(0.75));
  CHECK(pairs.heterogeneity() == doctest::Approx(0.5));
  CHECK(equal.heterogeneity() == doctest::Approx(0));
  CHECK(disjoint.summary() ==
        "by-document over 4 nodes: 100 to 100 tokens each, heterogeneity 0.7500");
  const std::string table = pairs.table();
  CHECK(std::count(table.begin(), table.end(), '\n') == 3);
  CHECK(contains(table, "200  50.00%          2, 100 tokens from apart-a\n"));
  CHECK(contains(table, "200  50.00%          2, 100 tokens from apart-b\n"));
}

TEST_CASE("a folder that does not record its documents is refused with what to do") {
  TemporaryFolder folder;
  for (const char* split : {"train", "val"}) {
    write_token_file(folder / (std::string("fineweb_") + split + "_000000.bin"),
                     std::vector<uint16_t>(1000, 7));
  }
  const Dataset data(folder.path());
  for (const PartitionRule& rule : {kWhole, parts(1)}) {
    CHECK(says(input_error_of([&] { Partition(data, rule, 2, 1, 8); }), folder.path(),
               "prepare the data again"));
  }
}

TEST_CASE(
    "how far a text was read is a function of the step, also of a run that goes on otherwise") {
  Position first(10, 4, 3, true);  // 3, 3 and 4 sequences a step, of 4 tokens
  CHECK(first.tokens(5) == 200);
  CHECK(first.sequences(5) == 50);
  std::vector<int64_t> read;
  for (int node = 0; node < 3; node++) read.push_back(first.sequences(5, node));
  CHECK(read[0] + read[1] + read[2] == 50);
  CHECK(*std::min_element(read.begin(), read.end()) == 15);
  CHECK(*std::max_element(read.begin(), read.end()) == 20);
  // Another batch size: every node where it was, and from there its new share.
  Position smaller(6, 4, 3, true);
  smaller.restore(5, first.counters(5));
  for (int node = 0; node < 3; node++) {
    CHECK(smaller.sequences(5, node) == read[size_t(node)]);
    CHECK(smaller.sequences(7, node) == read[size_t(node)] + 4);
  }
  CHECK(smaller.tokens(7) == 200 + 2 * 24);
  // Longer sequences: the same tokens are behind it.
  Position longer(6, 8, 3, true);
  longer.restore(5, first.counters(5));
  CHECK(longer.tokens(5) == 200);
  CHECK(longer.sequences(5) == 25);
  CHECK(longer.sequences(6) == 31);
  // Other nodes, or a text for all: each has read as much. So in checkpoints that know tokens only.
  for (bool apart : {true, false}) {
    Position others(8, 4, 2, apart);
    others.restore(5, first.counters(5));
    CHECK(others.sequences(5, 0) == 25);
    CHECK(others.sequences(6, 1) == 29);
    CHECK(others.counters(5).size() == (apart ? 3 : 1));
  }
  Position old(10, 4, 2, true);
  old.restore(5, {{"tokens", 200}});
  CHECK(old.counters(7) == Position(10, 4, 2, true).counters(7));
}
