// train/graph_picture.cpp - nodes and edges, or W itself where they are too many; and how averaging
// goes.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "dist/consensus.h"
#include "train/graph.h"
#include "train/plot.h"

namespace murmur {
namespace {

constexpr int kSide = 750;  // of each half
constexpr Box kLeft{0, 0, kSide, kSide}, kRight{kSide, 0, kSide + 850, kSide};
constexpr Point kCentre{kSide / 2.0, kSide / 2.0 + 25};
constexpr double kReach = 290;  // from the centre to the outermost nodes

struct Link {
  int to, from;
  double weight;
  bool both_ways;
};

// Of a symmetric round every pair once.
std::vector<Link> links_of(const Topology& t, int round) {
  std::vector<Link> links;
  for (int to = 0; to < t.nodes(); to++) {
    for (const Topology::In& in : t.in(round, to)) {
      bool both = t.weight(round, in.peer, to) == in.weight;
      if (!both || to < in.peer) links.push_back({to, in.peer, in.weight, both});
    }
  }
  return links;
}

class Drawing {
 public:
  Drawing(const ExaminedGraph& graph, Canvas& canvas)
      : graph_(graph), t_(graph.topology), canvas_(canvas), lattice_(grid_shape(t_.nodes())) {
    const std::string& name = graph.request.topology.name;
    on_lattice_ = (name == "torus" || name == "grid") && lattice_.rows > 1;
    double apart = on_lattice_ ? spacing() : 2 * std::numbers::pi * kReach / t_.nodes();
    disc_ = std::clamp(0.3 * apart, 3.0, 22.0);
  }

  void draw() {
    for (int round = 0; round < t_.rounds(); round++) {
      for (const Link& link : links_of(t_, round)) meetings_[std::minmax(link.to, link.from)]++;
    }
    for (int round = 0; round < t_.rounds(); round++) {
      for (const Link& link : links_of(t_, round)) edge(link);
      canvas_.paint(t_.rounds() == 1 ? kFrame : curve_color(round));
    }
    for (int node = 0; node < t_.nodes(); node++) dot(place(node), disc_);
    canvas_.paint(kText);
    for (int node = 0; node < t_.nodes(); node++) dot(place(node), disc_ - 1.5);
    canvas_.paint(kPaper);
    if (disc_ >= 8) {
      for (int node = 0; node < t_.nodes(); node++) {
        Point at = place(node);
        canvas_.text(set_text(std::to_string(node), 0.95 * disc_, 2 * disc_), at.x, at.y, 0.5);
      }
    }
    canvas_.paint(kText);
    legend();
  }

 private:
  double spacing() const { return 2 * kReach / lattice_.columns; }

  Point place(int node) const {
    if (on_lattice_) {
      double column = node % lattice_.columns - 0.5 * (lattice_.columns - 1);
      double row = node / lattice_.columns - 0.5 * (lattice_.rows - 1);
      return {kCentre.x + column * spacing(), kCentre.y + row * spacing()};
    }
    bool star = graph_.request.topology.name == "star" && t_.nodes() > 2;
    if (star && node == 0) return kCentre;
    double turn = star ? double(node - 1) / (t_.nodes() - 1) : double(node) / t_.nodes();
    double angle = 2 * std::numbers::pi * (turn - 0.25);  // clockwise from the top
    return {kCentre.x + kReach * std::cos(angle), kCentre.y + kReach * std::sin(angle)};
  }

  void dot(Point at, double radius) { canvas_.stroke(at, at, radius, kLeft); }

  void line(Point a, Point b, double weight) {
    canvas_.stroke(a, b, std::clamp(4.5 * weight, 0.5, 3.0), kLeft);
  }

  // Pairs that meet in several rounds have their links side by side.
  void edge(const Link& link) {
    Point a = place(link.from), b = place(link.to);
    if (on_lattice_ && closes_ring(link)) {  // leaves on one side and comes back on the other
      double dx = (b.x > a.x) - (b.x < a.x), dy = (b.y > a.y) - (b.y < a.y);
      double stub = 0.62 * spacing();
      line(a, {a.x - dx * stub, a.y - dy * stub}, link.weight);
      line(b, {b.x + dx * stub, b.y + dy * stub}, link.weight);
      return;
    }
    auto pair = std::minmax(link.to, link.from);
    double beside = (t_.directed() ? 9 : 5) * (before_[pair]++ - 0.5 * (meetings_[pair] - 1));
    double length = std::hypot(b.x - a.x, b.y - a.y), sign = link.to < link.from ? 1 : -1;
    double dx = sign * beside * (a.y - b.y) / length, dy = sign * beside * (b.x - a.x) / length;
    a = {a.x + dx, a.y + dy}, b = {b.x + dx, b.y + dy};
    line(a, b, link.weight);
    if (!link.both_ways) arrow(a, b);
  }

  bool closes_ring(const Link& link) const {
    int c = lattice_.columns;
    return std::abs(link.to % c - link.from % c) > 1 || std::abs(link.to / c - link.from / c) > 1;
  }

  // A head that touches the disc of the node that hears.
  void arrow(Point a, Point b) {
    double length = std::hypot(b.x - a.x, b.y - a.y);
    double dx = (b.x - a.x) / length, dy = (b.y - a.y) / length, size = std::max(6.0, 0.6 * disc_);
    Point tip{b.x - dx * (disc_ + 1), b.y - dy * (disc_ + 1)};
    for (double side : {0.45, -0.45}) {
      Point end{tip.x - size * (dx + side * dy), tip.y - size * (dy - side * dx)};
      canvas_.stroke(tip, end, 1.4, kLeft);
    }
  }

  // Which colour is which round.
  void legend() {
    if (t_.rounds() == 1) return;
    for (int round = 0; round < t_.rounds(); round++) {
      double x = 24, y = kSide - 20 - 22 * (t_.rounds() - 1 - round);
      canvas_.stroke({x, y}, {x + 24, y}, 1.5, kLeft);
      canvas_.paint(curve_color(round));
      canvas_.text(set_text(fmt::format("round {}", round + 1), 16, 200), x + 34, y, 0);
      canvas_.paint(kText);
    }
  }

  const ExaminedGraph& graph_;
  const Topology& t_;
  Canvas& canvas_;
  GridShape lattice_;
  bool on_lattice_ = false;
  double disc_ = 0;
  std::map<std::pair<int, int>, int> meetings_, before_;  // of two nodes; already drawn
};

// W of the first round as a picture of its own: the darker, the more weight.
void draw_matrix(const Topology& t, Canvas& canvas) {
  constexpr int kShades = 8;
  double left = kCentre.x - kReach, top = kCentre.y - kReach, cell = 2 * kReach / t.nodes();
  double most = 0;
  for (int i = 0; i < t.nodes(); i++) {
    for (const Topology::In& in : t.in(0, i)) most = std::max(most, in.weight);
    most = std::max(most, t.weight(0, i, i));
  }
  for (int shade = 1; shade <= kShades; shade++) {
    auto mark = [&](int i, int j, double weight) {
      if (std::clamp(int(std::ceil(weight / most * kShades)), 1, kShades) != shade) return;
      canvas.box({left + j * cell, top + i * cell, left + (j + 1) * cell, top + (i + 1) * cell});
    };
    for (int i = 0; i < t.nodes(); i++) {
      mark(i, i, t.weight(0, i, i));
      for (const Topology::In& in : t.in(0, i)) mark(i, in.peer, in.weight);
    }
    canvas.paint(curve_color(0), 0.15 + 0.85 * shade / kShades);
  }
  for (double at : {0.0, 2 * kReach}) {
    canvas.stroke({left, top + at}, {left + 2 * kReach, top + at}, 0.7, kLeft);
    canvas.stroke({left + at, top}, {left + at, top + 2 * kReach}, 0.7, kLeft);
  }
  canvas.paint(kFrame);
}

std::vector<double> counted(size_t count) {
  std::vector<double> numbers(count);
  for (size_t i = 0; i < count; i++) numbers[i] = double(i);
  return numbers;
}

// Far below what the picture is about there is only rounding.
std::vector<double> above_rounding(std::vector<double> errors) {
  for (double& error : errors) error = std::max(error, 1e-16);
  return errors;
}

Plot consensus_plot(const ExaminedGraph& g) {
  const Topology& t = g.topology;
  const TopologyReport& r = g.report;
  Plot plot{.title = "disagreement of random values",
            .x_label = "rounds",
            .y_label = "share that is left"};
  plot.log_y = true;
  int rounds = int(std::clamp<int64_t>(rounds_to(r, t.rounds(), 1e-8).value_or(100), 4, 400));
  if (r.exact) rounds = 2 * t.rounds() + 2;
  bool push_sum = r.column_stochastic && !r.row_stochastic;
  auto add = [&](const std::string& label, std::vector<double> errors) {
    plot.curves.push_back({.label = label,
                           .x = counted(errors.size()),
                           .y = above_rounding(std::move(errors)),
                           .markers = rounds <= 40});
  };
  add(push_sum ? "push-sum" : "gossip", gossip_errors(t, rounds, push_sum));
  if (r.exact) return plot;
  std::vector<double> bound(rounds + 1);
  for (int k = 0; k <= rounds; k++) bound[k] = std::pow(r.rho_per_round, k);
  add(fmt::format("{:.4f}^rounds", r.rho_per_round), bound);
  plot.curves.back().markers = false;
  if (r.smallest_eigenvalue && r.rho < 1) {
    int64_t enough = chebyshev_rounds_to(r, 1e-8).value_or(rounds);
    add("Chebyshev's acceleration",
        chebyshev_errors(t, r.rho, int(std::min<int64_t>(enough, rounds))));
  }
  return plot;
}

}  // namespace

void draw_graph(const ExaminedGraph& g, const std::string& path) {
  Canvas canvas(int(kRight.right), kSide);
  size_t edges = 0;
  for (int node = 0; node < g.topology.nodes(); node++) edges += g.topology.in(0, node).size();
  bool as_matrix = g.topology.nodes() > 64 || edges > 2000;
  std::string title = fmt::format("{} of {}", g.request.topology.name, g.topology.nodes());
  if (as_matrix) title += g.topology.rounds() > 1 ? ": W of the first round" : ": W";
  canvas.text(set_text(title, 25, kSide - 40), kCentre.x, 32, 0.5);
  canvas.paint(kText);
  as_matrix ? draw_matrix(g.topology, canvas) : Drawing(g, canvas).draw();
  canvas.forget_ink();
  draw(consensus_plot(g), canvas, kRight);
  canvas.write_png(path);
}

}  // namespace murmur
