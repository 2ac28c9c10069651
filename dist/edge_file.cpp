// dist/edge_file.cpp - the graph of a user: a text file of edges.
//
//   # a comment, here or after an edge
//   directed           optional, before the edges: `i j` says that i sends to j, and nothing more
//   0 1                an edge; the weights rule says what it weighs
//   1 2 0.25           or with a weight: w_ij and w_ji; directed: w_ji, what j makes of what i says
//
// Weights: on all edges or on none. They are W off the diagonal; w_ii makes up what is missing
// to 1.
#include <fmt/format.h>

#include <charconv>
#include <set>
#include <sstream>

#include "dist/topology.h"
#include "tensor/check.h"
#include "tensor/input_file.h"
#include "tensor/nearest.h"

namespace murmur {
namespace {

constexpr uint64_t kMostBytes = 256 << 20;  // twice what all pairs of 4096 nodes need

template <class Number>
bool parse(const std::string& text, Number& value) {
  auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && stop == text.data() + text.size();
}

class EdgeFile {
 public:
  EdgeFile(const std::string& path, int nodes) : path_(path), nodes_(nodes) {}

  Edges read() {
    std::istringstream file(read_file(path_, kMostBytes));
    for (std::string text; std::getline(file, text);) {
      line_++;
      std::istringstream words(text.substr(0, text.find('#')));
      std::vector<std::string> row;
      for (std::string word; words >> word;) row.push_back(word);
      if (!row.empty()) take(row);
    }
    return edges_;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw InputError(fmt::format("{}:{}: {}", path_, line_, what));
  }

  int node(const std::string& word) const {
    int id = 0;
    if (!parse(word, id))
      refuse(fmt::format("'{}' is no node's number; an edge is `i j` or `i j weight`", word));
    if (id < 0 || id >= nodes_)
      refuse(fmt::format("there is no node {}; {} nodes are 0 to {}", id, nodes_, nodes_ - 1));
    return id;
  }

  double weight(const std::string& word) const {
    double value = 0;
    if (!parse(word, value) || !(value > 0 && value < 1))
      refuse(fmt::format("'{}' is no weight; give a number between 0 and 1", word));
    return value;
  }

  void add(int to, int from, double weight) {
    if (!seen_.insert({to, from}).second)
      refuse(fmt::format("the edge from {} to {} was there before; name it once", from, to));
    edges_.push_back({to, from, weight});
  }

  void take(const std::vector<std::string>& row) {
    if (row.size() == 1 && row[0] == "directed") {
      if (!edges_.empty()) refuse("`directed` comes before the first edge");
      directed_ = true;
      return;
    }
    if (row.size() < 2 || row.size() > 3)
      refuse(fmt::format("'{}' is no edge; write `i j` or `i j weight`", fmt::join(row, " ")));
    int a = node(row[0]), b = node(row[1]);
    if (a == b) refuse(fmt::format("node {} always hears itself; leave this line out", a));
    double w = row.size() == 3 ? weight(row[2]) : 0;
    if (!edges_.empty() && (w > 0) != (edges_[0].weight > 0))
      refuse("some edges have weights and some have none; give all of them, or none");
    add(b, a, w);
    if (!directed_) add(a, b, w);
  }

  std::string path_;
  int nodes_, line_ = 0;
  bool directed_ = false;
  Edges edges_;
  std::set<std::pair<int, int>> seen_;
};

}  // namespace

std::vector<Edges> edges_rounds(const TopologyOptions& options, int nodes) {
  if (options.edges.empty())
    throw InputError("edges: topology edges wants a file of lines `i j`; name it with --edges");
  Edges edges = EdgeFile(options.edges, nodes).read();
  bool weighted = !edges.empty() && edges[0].weight > 0, column = options.weights == "column";
  if (weighted && options.weights != "auto" && !column) {
    throw InputError(
        fmt::format("weights: the edges of '{}' have weights of their own; leave {} out",
                    options.edges, options.weights));
  }
  std::vector<double> given(nodes);
  for (const Edge& edge : edges) given[column ? edge.from : edge.to] += edge.weight;
  for (int node = 0; node < nodes; node++) {
    if (given[node] > 1 - 1e-9) {
      throw InputError(fmt::format(
          "edges: '{}': the weights {} node {} sum to {:.6g}; below 1, so that its own is positive",
          options.edges, column ? "of what is heard from" : "of what is heard by", node,
          given[node]));
    }
  }
  return {edges};
}

}  // namespace murmur
