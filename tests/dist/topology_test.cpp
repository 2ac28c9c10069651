// Every graph of the list against closed forms, an SVD of its own, and what it promises.
#include "dist/topology.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <random>
#include <set>

#include "dist/topology_report.h"
#include "tensor/check.h"
#include "tests/train/temporary_folder.h"

using namespace murmur;

namespace {

// Where the list names a graph that needs more than a number of nodes.
class Maker {
 public:
  explicit Maker(std::string weights = "auto", bool lazy = false) {
    options_.weights = std::move(weights);
    options_.lazy = lazy;
  }
  TopologyOptions options(const std::string& name, int nodes) {
    TopologyOptions options = options_;
    options.name = name;
    if (name == "edges") {  // a ladder of sorts: i - i + 1, i - i + 3
      std::string lines = "# made by a test\n";
      for (int i = 0; i < nodes; i++) {
        for (int step : {1, 3}) {
          if (i + step < nodes)
            lines += std::to_string(i) + " " + std::to_string(i + step) + "  # edge\n\n";
        }
      }
      options.edges = folder_ / "edges.txt";
      put_bytes(options.edges, lines);
    }
    return options;
  }
  Topology operator()(const std::string& name, int nodes) {
    return make_topology(options(name, nodes), nodes);
  }

 private:
  TemporaryFolder folder_;
  TopologyOptions options_;
};

Topology graph(const std::string& name, int nodes, const std::string& weights = "auto",
               bool lazy = false) {
  return Maker(weights, lazy)(name, nodes);
}

double rho(const std::string& name, int nodes) { return report(graph(name, nodes)).rho; }

// A graph from the lines of a file.
Topology from_file(const std::string& lines, int nodes, const std::string& weights = "auto") {
  TemporaryFolder folder;
  put_bytes(folder / "graph.txt", lines);
  return make_topology({.name = "edges", .weights = weights, .edges = folder / "graph.txt"}, nodes);
}

std::string refusal(const std::string& lines, int nodes, const std::string& weights = "auto") {
  try {
    from_file(lines, nodes, weights);
  } catch (const InputError& error) {
    std::string text = error.what();
    return text.substr(text.find("graph.txt"));
  }
  return "accepted";
}

bool exists(const std::string& name, int nodes) {
  bool power_of_two = (nodes & (nodes - 1)) == 0;
  return power_of_two || (name != "hypercube" && name != "one_peer_hypercube");
}

// All singular values, by Hestenes' rotations of columns: slow, simple, and not what spectrum.cpp
// does.
std::vector<double> singular_values(const SquareMatrix& m) {
  int n = m.size;
  std::vector<std::vector<double>> columns(n, std::vector<double>(n));
  for (int i = 0; i < n; i++) {
    for (int j = 0; j < n; j++) columns[j][i] = m(i, j);
  }
  auto dot = [&](int p, int q) {
    return std::inner_product(columns[p].begin(), columns[p].end(), columns[q].begin(), 0.0);
  };
  bool turned = true;
  for (int sweep = 0; turned && sweep < 60; sweep++) {
    turned = false;
    for (int p = 0; p < n; p++) {
      for (int q = p + 1; q < n; q++) {
        double a = dot(p, p), b = dot(q, q), ab = dot(p, q);
        if (std::fabs(ab) <= 1e-16 * std::sqrt(a * b) || a * b < 1e-60) continue;
        turned = true;
        double angle = 0.5 * std::atan2(2 * ab, a - b), c = std::cos(angle), s = std::sin(angle);
        for (int i = 0; i < n; i++) {
          double x = columns[p][i], y = columns[q][i];
          columns[p][i] = c * x + s * y;
          columns[q][i] = c * y - s * x;
        }
      }
    }
  }
  std::vector<double> values(n);
  for (int p = 0; p < n; p++) values[p] = std::sqrt(dot(p, p));
  std::sort(values.rbegin(), values.rend());
  return values;
}

SquareMatrix less_mean(SquareMatrix m) {  // W - J
  for (double& entry : m.entries) entry -= 1.0 / m.size;
  return m;
}

double distance_to_mean(const Topology& t) {  // largest entry of product - J
  double largest = 0;
  for (double entry : less_mean(mixing_product(t)).entries)
    largest = std::max(largest, std::fabs(entry));
  return largest;
}

std::vector<double> mixed(const Topology& t, int round, const std::vector<double>& x) {
  SquareMatrix w = mixing_matrix(t, round);
  std::vector<double> y(x.size());
  for (int i = 0; i < w.size; i++) {
    for (int j = 0; j < w.size; j++) y[i] += w(i, j) * x[j];
  }
  return y;
}

std::vector<double> row(const Topology& t, int round, int node) {
  std::vector<double> entries;
  for (int j = 0; j < t.nodes(); j++) entries.push_back(t.weight(round, node, j));
  return entries;
}

bool near(const std::vector<double>& a, const std::vector<double>& b, double bound) {
  bool all = a.size() == b.size();
  for (size_t i = 0; all && i < a.size(); i++) all = std::fabs(a[i] - b[i]) <= bound;
  return all;
}

// The same graph with node i called order[i].
Topology relabelled(const Topology& t, const std::vector<int>& order) {
  std::vector<Edges> rounds(t.rounds());
  for (int r = 0; r < t.rounds(); r++) {
    for (int to = 0; to < t.nodes(); to++) {
      for (const Topology::In& in : t.in(r, to))
        rounds[r].push_back({order[to], order[in.peer], in.weight});
    }
  }
  return Topology(t.nodes(), rounds);
}

bool near(double a, double b, double bound = 5.1e-11) { return std::fabs(a - b) <= bound; }

}  // namespace

TEST_CASE("rings: closed form and known answers") {
  for (auto [n, known] : {std::pair{3, 0.0},
                          {4, .3333333333},
                          {5, .5393446629},
                          {7, .7489932012},
                          {8, .8047378541},
                          {16, .9492530217},
                          {32, .9871901869},
                          {64, .9967898178}}) {
    CAPTURE(n);
    auto at = [n = n](int k) { return 1. / 3 + 2. / 3 * std::cos(2 * std::numbers::pi * k / n); };
    CHECK(near(rho("ring", n), known));
    CHECK(near(rho("ring", n), std::max(at(1), std::fabs(at(n / 2))), 1e-12));
  }
  CHECK(near(row(graph("ring", 4), 0, 0), {1. / 3, 1. / 3, 0, 1. / 3}, 1e-16));
  CHECK(near(row(graph("ring", 8), 0, 0), {1. / 3, 1. / 3, 0, 0, 0, 0, 0, 1. / 3}, 1e-16));
  CHECK(near(report(graph("ring", 8)).rho, .804737854124, 1e-12));
  CHECK(near(report(graph("ring", 8, "auto", true)).rho, .9023689271, 1e-10));
  // Two nodes have one edge, not two.
  CHECK(row(graph("ring", 2), 0, 0) == std::vector<double>{.5, .5});
  CHECK(rho("ring", 2) < 1e-15);
  // Even rings sit on -1/3, where D2 may not be; the lazy ones do not.
  CHECK(near(*report(graph("ring", 8)).smallest_eigenvalue, -1. / 3, 1e-14));
  CHECK(*report(graph("ring", 8, "auto", true)).smallest_eigenvalue > 1. / 3 - 1e-14);
}

TEST_CASE("a ring of four mixes as by hand") {
  Topology ring = graph("ring", 4);
  std::vector<double> x = {0, 4, 8, 12};
  x = mixed(ring, 0, x);
  CHECK(near(x, {16. / 3, 4, 8, 20. / 3}, 1e-14));
  x = mixed(ring, 0, x);
  CHECK(near(x, {5.3333, 5.7778, 6.2222, 6.6667}, 5.1e-5));
  x = mixed(ring, 0, x);
  CHECK(near(x, {5.9259, 5.7778, 6.2222, 6.0741}, 5.1e-5));
}

TEST_CASE("exponential graphs, the usual one and that of DeMuon's authors") {
  for (auto [n, known] : {std::pair{2, 0.0},
                          {3, 0.0},
                          {4, 1. / 3},
                          {5, .25},
                          {6, .5},
                          {7, .3535533906},
                          {8, .5},
                          {9, .4417866110},
                          {16, .6}}) {
    CAPTURE(n);
    CHECK(near(rho("exponential", n), known));
  }
  for (int n = 2; n <= 32; n += 2) {
    CAPTURE(n);
    double tau = std::ceil(std::log2(n));
    CHECK(near(rho("exponential", n), std::max(0.0, 1 - 2 / (tau + 1)), 1e-12));
  }
  for (auto [n, known] : {std::pair{4, .5}, {8, .6}, {16, .6666666667}}) {
    CAPTURE(n);
    CHECK(near(rho("exponential_demuon", n), known));
  }
  // Here a node hears those before it, there those after it.
  CHECK(row(graph("exponential", 8), 0, 0) == std::vector<double>{.25, 0, 0, 0, .25, 0, .25, .25});
  CHECK(near(row(graph("exponential_demuon", 8), 0, 0), {.4, .2, .2, 0, .2, 0, 0, 0}, 1e-15));
  CHECK(row(graph("exponential_demuon", 4), 0, 0) == std::vector<double>{.5, .25, .25, 0});
  CHECK(graph("exponential", 8).directed());
  CHECK(!graph("exponential", 3).directed());  // where everybody hears everybody
}

TEST_CASE("torus, grid, star, path, hypercube, complete: closed forms and known answers") {
  CHECK(near(rho("torus", 9), .4));
  CHECK(near(rho("torus", 16), .6));
  for (auto [r, c] : {std::pair{3, 4}, {4, 5}, {5, 5}, {4, 8}}) {
    CAPTURE(r * c);
    double known = 0;
    for (int a = 0; a < r; a++) {
      for (int b = a == 0; b < c; b++) {
        double turn = 2 * std::numbers::pi;
        double value = (1 + 2 * std::cos(turn * a / r) + 2 * std::cos(turn * b / c)) / 5;
        known = std::max(known, std::fabs(value));
      }
    }
    CHECK(near(rho("torus", r * c), known, 1e-12));
  }
  CHECK(near(rho("torus", 7), rho("ring", 7), 1e-14));  // a prime number: one row
  for (auto [n, known] :
       {std::pair{4, 1. / 3}, {6, .75}, {9, .7674234614}, {8, .8535533906}, {16, .8686406183}}) {
    CAPTURE(n);
    CHECK(near(rho("grid", n), known));
  }
  for (auto [n, known] : {std::pair{4, .75}, {8, .875}}) CHECK(near(rho("star", n), known));
  for (auto [n, known] :
       {std::pair{4, .8047378541}, {7, .9339792453}, {8, .9492530217}, {16, .9871901869}}) {
    CAPTURE(n);
    CHECK(near(rho("path", n), known));
    CHECK(near(rho("path", n), rho("ring", 2 * n), 1e-12));
  }
  for (int d = 1; d <= 5; d++)
    CHECK(near(rho("hypercube", 1 << d), std::max(0.0, 1 - 2.0 / (d + 1)), 1e-12));
  for (int n : {1, 2, 5, 16}) CHECK(rho("complete", n) < 1e-14);
  CHECK(report(graph("complete", 5)).exact);
}

TEST_CASE("one-peer exponential graphs are exact for powers of two alone") {
  std::vector<double> x = {0, 4, 8, 12};
  Topology four = graph("one_peer_exponential", 4);
  CHECK(four.rounds() == 2);
  x = mixed(four, 0, x);
  CHECK(x == std::vector<double>{6, 2, 6, 10});
  x = mixed(four, 1, x);
  CHECK(x == std::vector<double>{6, 6, 6, 6});
  for (auto [n, known] : {std::pair{3, .25}, {5, .2023}, {6, .2165}, {7, .125}}) {
    CAPTURE(n);
    CHECK(near(rho("one_peer_exponential", n), known, 5.1e-5));
  }
  for (int n : {2, 4, 8, 16, 32}) {
    CAPTURE(n);
    for (const char* name : {"one_peer_exponential", "one_peer_hypercube"}) {
      CHECK(graph(name, n).rounds() == int(std::log2(n)));
      CHECK(distance_to_mean(graph(name, n)) < 1e-16);
      CHECK(report(graph(name, n)).exact);
    }
  }
  CHECK(graph("one_peer_exponential", 8).directed());
  CHECK(!graph("one_peer_hypercube", 8).directed());
}

TEST_CASE("Base-2 graphs reach the mean of any number, one peer a round") {
  for (auto [n, rounds] :
       {std::pair{2, 1}, {3, 3}, {4, 2}, {5, 5}, {8, 3}, {9, 7}, {16, 4}, {31, 9}, {32, 5}}) {
    CAPTURE(n);
    CHECK(graph("base2", n).rounds() == rounds);
  }
  for (int n = 1; n <= 100; n++) {
    CAPTURE(n);
    Topology t = graph("base2", n);
    CHECK(t.rounds() <= 2 * std::log2(n) + 2);
    CHECK(!t.directed());
    CHECK(distance_to_mean(t) < 1e-14);
    for (int r = 0; r < t.rounds(); r++) {
      for (int node = 0; node < n; node++) CHECK(t.in(r, node).size() <= 1);
    }
  }
  Topology three = graph("base2", 3);  // by hand
  CHECK(row(three, 0, 0) == std::vector<double>{.5, .5, 0});
  CHECK(near(row(three, 2, 1), {.5, .5, 0}, 0));
  CHECK(near(row(three, 1, 0), {1. / 3, 0, 2. / 3}, 1e-16));
  CHECK(near(row(three, 1, 2), {2. / 3, 0, 1. / 3}, 1e-16));
}

TEST_CASE("every topology, 1 to 33 nodes: stochastic, connected, rho that of an SVD") {
  for (const TopologyEntry& entry : topology_list()) {
    CAPTURE(entry.name);
    for (bool lazy : {false, true}) {
      Maker make("auto", lazy);
      for (int n = 1; n <= 33; n++) {
        if (!exists(entry.name, n)) continue;
        CAPTURE(n);
        Topology t = make(entry.name, n);
        TopologyReport r = report(t);
        CHECK(t.nodes() == n);
        CHECK(t.rounds() >= 1);
        CHECK(r.row_stochastic);
        CHECK(r.column_stochastic);
        CHECK(r.positive_diagonal);
        CHECK(r.connected);
        CHECK(r.symmetric == !t.directed());
        CHECK(near(r.rho, singular_values(less_mean(mixing_product(t)))[0], 1e-12));
        CHECK(near(std::pow(r.rho_per_round, t.rounds()), r.rho, 1e-12));
        CHECK(r.smallest_eigenvalue.has_value() == (t.rounds() == 1 && r.symmetric));
        if (lazy && r.smallest_eigenvalue) CHECK(*r.smallest_eigenvalue > -1e-12);
        bool in_step = true;
        for (int round = 0; round < t.rounds(); round++) {
          for (int i = 0; i < n; i++) {
            std::vector<int> hears, heard;
            for (const Topology::In& in : t.in(round, i)) {
              hears.push_back(in.peer);
              in_step &= in.weight == t.weight(round, i, in.peer) && in.weight > 0;
              const auto& out = t.out(round, in.peer);
              in_step &= std::count(out.begin(), out.end(), i) == 1;
            }
            for (int j : t.out(round, i)) in_step &= t.weight(round, j, i) > 0;
            heard = t.out(round, i);
            for (auto* list : {&hears, &heard}) {
              in_step &= std::is_sorted(list->begin(), list->end());
              in_step &= std::count(list->begin(), list->end(), i) == 0;
              in_step &= std::set<int>(list->begin(), list->end()).size() == list->size();
            }
          }
        }
        CHECK(in_step);
      }
    }
  }
}

TEST_CASE("rules for weights: doubly stochastic where they say so, and as good as they say") {
  for (const char* rule : {"metropolis", "max_degree", "laplacian", "column"}) {
    CAPTURE(rule);
    for (const char* name : {"ring", "path", "torus", "grid", "star", "complete", "erdos_renyi"}) {
      CAPTURE(name);
      for (int n = 1; n <= 17; n++) {
        CAPTURE(n);
        TopologyReport r = report(graph(name, n, rule));
        bool column = rule == std::string("column");
        CHECK((column ? r.column_stochastic : r.doubly_stochastic));
        CHECK((r.positive_diagonal || rule == std::string("laplacian")));
        CHECK(r.rho < 1);
        if (!column)
          CHECK(report(graph(name, n, "laplacian")).rho < r.rho + 1e-12 + (*rule == 'm'));
      }
    }
  }
  // The best constant beats every other.
  for (int n : {5, 8, 12}) {
    CAPTURE(n);
    CHECK(report(graph("path", n, "laplacian")).rho < report(graph("path", n, "max_degree")).rho);
  }
  // A star: eigenvalues 1 and n of L, so 2 / (n + 1), rho (n - 1) / (n + 1), and a hub below zero.
  CHECK(near(report(graph("star", 8, "laplacian")).rho, 7. / 9, 1e-13));
  CHECK(!report(graph("star", 8, "laplacian")).positive_diagonal);
  CHECK(near(graph("star", 8, "max_degree").weight(0, 1, 1), 7. / 8, 1e-15));
  CHECK(row(graph("star", 4, "column"), 0, 0) == std::vector<double>{.25, .5, .5, .5});
  CHECK(!report(graph("star", 4, "column")).row_stochastic);
  CHECK_THROWS_WITH_AS(
      graph("exponential", 8, "metropolis"),
      "weights: metropolis wants edges that go both ways; use auto, or column with "
      "push-sum",
      InputError);
  CHECK_THROWS_WITH_AS(graph("base2", 6, "laplacian"),
                       "weights: laplacian is for a graph that stays the same; use auto",
                       InputError);
}

TEST_CASE("push-sum: a directed file with weights `column`") {
  Topology t = from_file("directed\n0 1\n0 2\n1 2\n2 0\n", 3, "column");
  CHECK(near(row(t, 0, 0), {1. / 3, 0, .5}, 1e-16));
  CHECK(near(row(t, 0, 1), {1. / 3, .5, 0}, 1e-16));
  CHECK(near(row(t, 0, 2), {1. / 3, .5, .5}, 1e-16));
  TopologyReport r = report(t);
  CHECK(r.column_stochastic);
  CHECK(!r.row_stochastic);
  CHECK(near(r.rho, .288675, 5.1e-7));
  CHECK(near(r.rho, std::sqrt(1. / 12), 1e-12));  // a complex pair
  std::vector<double> x = {0, 3, 6}, s = {1, 1, 1}, z(3);
  std::vector<std::vector<double>> known = {
      {3.6, 1.8, 3.375}, {3.4411765, 2.52, 2.9387755}, {3.0976744, 2.9580420, 2.9482759}};
  for (int round = 0; round < 3; round++) {
    x = mixed(t, 0, x), s = mixed(t, 0, s);
    for (int i = 0; i < 3; i++) z[i] = x[i] / s[i];
    CHECK(near(z, known[round], 5.1e-8));
  }
  x = {1, 4, 7}, s = {1, 1, 1};
  for (int round = 0; round < 3; round++) x = mixed(t, 0, x), s = mixed(t, 0, s);
  CHECK(near(x, {4.078704, 2.620370, 5.300926}, 5.1e-7));
  CHECK(near(s, {.995370, .662037, 1.342593}, 5.1e-7));
  // Given weights are those of the columns then.
  Topology given = from_file("directed\n0 1 .5\n0 2 .25\n1 2 .5\n2 0 .75\n", 3, "column");
  CHECK(row(given, 0, 0) == std::vector<double>{.25, 0, .75});
  CHECK(row(given, 0, 2) == std::vector<double>{.25, .5, .25});
  // Of a symmetric graph: eigenvalues of D^-1 (A + I), here 1, 1/2, -1/6 of a path of three.
  CHECK(near(report(graph("path", 3, "column")).rho, .5, 1e-12));
}

TEST_CASE("edge files: which way round, comments, weights") {
  Topology path = from_file("# a path\n\n0 1 # first\n\t1\t2\n", 3);
  CHECK(path.rounds() == 1);
  CHECK(!path.directed());
  CHECK(near(row(path, 0, 1), {1. / 3, 1. / 3, 1. / 3}, 1e-16));
  Topology weighted = from_file("0 1 .25\n1 2 0.5\n", 3);
  CHECK(row(weighted, 0, 0) == std::vector<double>{.75, .25, 0});
  CHECK(row(weighted, 0, 1) == std::vector<double>{.25, .25, .5});
  // `i j`: i sends to j, so j hears i.
  Topology directed = from_file("directed\n0 1 .3\n1 2 .3\n2 0 .3\n", 3);
  CHECK(directed.directed());
  CHECK(directed.weight(0, 1, 0) == .3);
  CHECK(directed.weight(0, 0, 1) == 0);
  CHECK(report(directed).doubly_stochastic);
  CHECK(report(from_file("directed\n0 1\n1 2\n2 0\n", 3)).doubly_stochastic);  // max_degree
  TopologyReport rows = report(from_file("directed\n0 1 .3\n1 2 .3\n2 0 .5\n", 3));
  CHECK(rows.row_stochastic);
  CHECK(!rows.column_stochastic);
  CHECK(rows.rho < 1);
  CHECK(from_file("", 1).rounds() == 1);
}

TEST_CASE("edge files: what is wrong, on which line") {
  CHECK(refusal("0 1\n1 2\n1 8\n", 8) == "graph.txt:3: there is no node 8; 8 nodes are 0 to 7");
  CHECK(refusal("0 1\n# x\n1 -1\n", 4) == "graph.txt:3: there is no node -1; 4 nodes are 0 to 3");
  CHECK(refusal("0 1\n1 two\n", 4) ==
        "graph.txt:2: 'two' is no node's number; an edge is `i j` or `i j weight`");
  CHECK(refusal("0 1 2 3\n", 4) ==
        "graph.txt:1: '0 1 2 3' is no edge; write `i j` or `i j weight`");
  CHECK(refusal("3\n", 4) == "graph.txt:1: '3' is no edge; write `i j` or `i j weight`");
  CHECK(refusal("1 1\n", 4) == "graph.txt:1: node 1 always hears itself; leave this line out");
  CHECK(refusal("0 1\n1 0\n", 4) ==
        "graph.txt:2: the edge from 1 to 0 was there before; name it once");
  CHECK(refusal("0 1\ndirected\n", 4) == "graph.txt:2: `directed` comes before the first edge");
  CHECK(refusal("0 1 .5\n1 2\n", 4) ==
        "graph.txt:2: some edges have weights and some have none; give all of them, or none");
  for (const char* weight : {"0", "-0.1", "1", "nan", "inf", "half"})
    CHECK(refusal("0 1 " + std::string(weight), 2) ==
          "graph.txt:1: '" + std::string(weight) + "' is no weight; give a number between 0 and 1");
  CHECK(
      refusal("0 1 .6\n1 2 .6\n", 3) ==
      "graph.txt': the weights of what is heard by node 1 sum to 1.2; below 1, so that its own is "
      "positive");
  CHECK(refusal("0 1\n2 3\n", 4) == "graph.txt', node 2 never hears of node 0; add edges");
  CHECK(refusal("directed\n1 0\n", 2, "column") ==
        "graph.txt', node 1 never hears of node 0; add edges");
  CHECK(refusal("directed\n0 1\n", 2, "column") ==
        "graph.txt', node 0 never hears of node 1; add edges");
}

TEST_CASE("wrong input is refused in one line that helps") {
  CHECK_THROWS_WITH_AS(graph("rnig", 8), "topology: there is no 'rnig'; did you mean 'ring'?",
                       InputError);
  CHECK_THROWS_WITH_AS(graph("ring", 8, "metropolitan"),
                       "weights: there is no 'metropolitan'; did you mean 'metropolis'?",
                       InputError);
  CHECK_THROWS_WITH_AS(
      graph("hypercube", 7),
      "topology: hypercube wants a power of two, not 7 nodes; use torus or exponential",
      InputError);
  CHECK_THROWS_WITH_AS(graph("one_peer_hypercube", 6),
                       "topology: one_peer_hypercube wants a power of two, not 6 nodes; use base2",
                       InputError);
  CHECK_THROWS_AS(graph("ring", 0), InputError);
  CHECK_THROWS_WITH_AS(make_topology({.name = "edges"}, 4), doctest::Contains("--edges"),
                       InputError);
  CHECK_THROWS_WITH_AS(make_topology({.name = "edges", .edges = "/not/there"}, 4),
                       "/not/there: cannot open: No such file or directory; check the path",
                       InputError);
  CHECK_THROWS_AS(make_topology({.name = "ring", .edges = "a.txt"}, 4), InputError);
  CHECK_THROWS_WITH_AS(make_topology({.name = "erdos_renyi", .probability = 0.001}, 8),
                       doctest::Contains("raise it above 0.26"), InputError);
}

TEST_CASE("settings are listed with their choices and reach the graph") {
  TopologyOptions options;
  set_option(options.options(), "", "topology", "star");
  set_option(options.options(), "", "weights", "max_degree");
  set_option(options.options(), "", "lazy_weights", "true");
  set_option(options.options(), "", "edge_probability", "0.5");
  set_option(options.options(), "", "graph_seed", "7");
  set_option(options.options(), "", "edges", "");
  CHECK(make_topology(options, 4).weight(0, 0, 1) == .125);
  CHECK_THROWS_AS(set_option(options.options(), "", "topology", "sun"), InputError);
  CHECK_THROWS_AS(set_option(options.options(), "", "edge_probability", "1.5"), InputError);
}

TEST_CASE("random graphs: the same from the same seed, more edges with more probability") {
  auto edges = [](double probability, int64_t seed) {
    Topology t =
        make_topology({.name = "erdos_renyi", .probability = probability, .seed = seed}, 32);
    return mixing_matrix(t, 0).entries;
  };
  CHECK(edges(.3, 1) == edges(.3, 1));
  CHECK(edges(.3, 1) != edges(.3, 2));
  auto count = [](const std::vector<double>& w) {
    return w.size() - std::count(w.begin(), w.end(), 0);
  };
  CHECK(count(edges(.3, 1)) > 32 + 2 * 496 * .2);
  CHECK(count(edges(.3, 1)) < 32 + 2 * 496 * .4);
  CHECK(edges(1, 1) == mixing_matrix(graph("complete", 32), 0).entries);
}

TEST_CASE("nodes may be numbered in any order") {
  std::mt19937 random(3);
  for (const char* name : {"grid", "exponential", "base2", "star"}) {
    CAPTURE(name);
    Topology t = graph(name, 12);
    std::vector<int> order(12);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    Topology other = relabelled(t, order);
    for (int r = 0; r < t.rounds(); r++) {
      for (int i = 0; i < 12; i++) {
        for (int j = 0; j < 12; j++)
          CHECK(near(other.weight(r, order[i], order[j]), t.weight(r, i, j), 1e-16));
      }
    }
    CHECK(near(report(other).rho, report(t).rho, 1e-12));
    CHECK(other.directed() == t.directed());
  }
}

TEST_CASE("a symmetric graph without a node: what was given to it is kept") {
  Topology ring = graph("ring", 8);
  Survivors seven = without({}, ring, {3});
  CHECK(seven.done == "edges dropped");
  CHECK(seven.topology.nodes() == 7);
  CHECK(near(report(seven.topology).rho, .9339792453));
  CHECK(near(rho("ring", 7), .7489932012));
  CHECK(near(row(seven.topology, 0, 2), {0, 1. / 3, 2. / 3, 0, 0, 0, 0}, 1e-15));
  CHECK(near(row(seven.topology, 0, 3), {0, 0, 0, 2. / 3, 1. / 3, 0, 0}, 1e-15));
  // Two that are not neighbours: two halves, so a new ring.
  Survivors six = without({}, ring, {0, 4});
  CHECK(six.done == "rebuilt as ring");
  CHECK(near(report(six.topology).rho, rho("ring", 6), 1e-15));
  // And once more, from there.
  Survivors five = without({}, six.topology, {5});
  CHECK(five.done == "edges dropped");
  CHECK(five.topology.nodes() == 5);
}

TEST_CASE("every topology, 2 to 17 nodes, without any one and any two of them") {
  for (const TopologyEntry& entry : topology_list()) {
    CAPTURE(entry.name);
    for (const char* rule : {"auto", "column"}) {
      CAPTURE(rule);
      Maker make(rule);
      for (int n = 2; n <= 17; n++) {
        if (!exists(entry.name, n)) continue;
        CAPTURE(n);
        Topology t = make(entry.name, n);
        for (int lost = 0; lost < n; lost++) {
          for (int also : {lost, n / 2}) {
            if (n == 2 && lost != also) continue;
            Survivors left = without(make.options(entry.name, n), t, {lost, also});
            TopologyReport r = report(left.topology);
            CHECK(left.topology.nodes() == n - (lost == also ? 1 : 2));
            CHECK(r.connected);
            CHECK(r.column_stochastic);
            CHECK((r.row_stochastic || rule == std::string("column")));
            CHECK(r.positive_diagonal);
            bool one_peer = entry.name.starts_with("one_peer");
            if (!t.directed() && !one_peer) CHECK((r.symmetric || rule == std::string("column")));
            CHECK((left.done == "edges dropped" || left.done.starts_with("rebuilt as ")));
          }
        }
      }
    }
  }
}

TEST_CASE("schedules and directed graphs without a node are made anew, or give way to a relative") {
  auto done = [](const std::string& name, int nodes, std::vector<int> lost,
                 const std::string& weights = "auto") {
    Maker make(weights);
    return without(make.options(name, nodes), make(name, nodes), lost).done;
  };
  CHECK(done("one_peer_hypercube", 8, {1}) == "rebuilt as base2");
  CHECK(done("one_peer_hypercube", 8, {0, 1, 2, 3}) == "rebuilt as one_peer_hypercube");
  CHECK(done("one_peer_exponential", 8, {1}) == "rebuilt as base2");
  CHECK(done("one_peer_exponential", 6, {1, 2}) == "rebuilt as one_peer_exponential");
  CHECK(done("base2", 8, {1}) == "rebuilt as base2");
  CHECK(done("exponential", 8, {1}) == "rebuilt as exponential");
  CHECK(done("exponential", 8, {1}, "column") == "edges dropped");
  CHECK(done("exponential_demuon", 8, {1}) == "rebuilt as exponential_demuon");
  CHECK(done("hypercube", 8, {1}) == "edges dropped");
  CHECK(done("hypercube", 8, {1, 2, 4}) == "rebuilt as torus");
  CHECK(done("star", 8, {0}) == "rebuilt as star");
  CHECK(done("path", 8, {3}) == "rebuilt as path");
  CHECK(done("edges", 8, {0}) == "edges dropped");
  CHECK(done("edges", 8, {1, 3}) == "rebuilt as ring");
  CHECK(done("complete", 4, {0, 1, 3}) == "edges dropped");
  TemporaryFolder folder;
  put_bytes(folder / "cycle.txt", "directed\n0 1\n1 2\n2 3\n3 0\n");
  TopologyOptions cycle{.name = "edges", .edges = folder / "cycle.txt"};
  CHECK(without(cycle, make_topology(cycle, 4), {2}).done == "rebuilt as exponential");
  CHECK(done("ring", 4, {}) == "the whole graph");
  CHECK_THROWS_AS(done("ring", 4, {0, 1, 2, 3}), Error);
  CHECK_THROWS_AS(done("ring", 4, {4}), Error);
}

TEST_CASE("rounds to a factor") {
  auto rounds = [](const std::string& name, int nodes, double factor) {
    Topology t = graph(name, nodes);
    return rounds_to(report(t), t.rounds(), factor).value_or(-1);
  };
  CHECK(rounds("ring", 8, 1e-6) == 64);
  CHECK(rounds("ring", 16, 1e-6) == 266);
  CHECK(chebyshev_rounds_to(report(graph("ring", 8)), 1e-6) == 22);
  CHECK(chebyshev_rounds_to(report(graph("ring", 16)), 1e-6) == 45);
  CHECK(!chebyshev_rounds_to(report(graph("exponential", 8)), 1e-6).has_value());
  CHECK(rounds("complete", 8, 1e-6) == 1);
  CHECK(rounds("base2", 9, 1e-6) == 7);
  CHECK(rounds("ring", 1, 1e-6) == 1);
  Topology apart(3, {{{0, 1, .5}, {1, 0, .5}}});
  CHECK(!report(apart).connected);
  CHECK(!rounds_to(report(apart), 1, 1e-6).has_value());
}

TEST_CASE("a thousand nodes take seconds") {
  for (const char* name : {"ring", "exponential", "base2"}) {
    TopologyReport r = report(graph(name, 1024));
    CAPTURE(name);
    CHECK(r.doubly_stochastic);
    CHECK(r.connected);
  }
  CHECK(near(rho("ring", 1024), 1. / 3 + 2. / 3 * std::cos(2 * std::numbers::pi / 1024), 1e-12));
  CHECK(near(rho("exponential", 1024), 1 - 2. / 11, 1e-12));
}
