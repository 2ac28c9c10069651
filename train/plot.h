// train/plot.h - line charts as PNG files.
//
//   Plot plot{.title = "loss", .x_label = "step", .y_label = "nats"};
//   plot.curves.push_back({.label = "muon", .x = steps, .y = losses});
//   write_png(plot, "loss.png");
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "train/canvas.h"

namespace murmur {

// A value without a place on its axis (NaN, infinity, zero or less on a log axis) is a gap.
struct Curve {
  std::string label;           // empty: not in the legend
  std::vector<double> x, y;    // same length
  std::vector<double> low{};   // a band around y, for instance mean -+ standard error;
  std::vector<double> high{};  //   both as long as y, or both empty
  bool markers = false;        // a dot at every point
  bool faint = false;          // thin and pale, in the colour of the next curve: raw values behind
};

struct Plot {
  std::string title{}, x_label{}, y_label{};
  std::vector<Curve> curves{};
  bool log_x = false, log_y = false;
};

inline constexpr int kPlotWidth = 1200, kPlotHeight = 750;

// Written aside and renamed, so that a viewer never sees half a file. Error names the path.
void write_png(const Plot& plot, const std::string& path);
void draw(const Plot& plot, Canvas& canvas, const Box& where);  // as a part of a larger picture

// --- the decisions behind a picture, open to tests ---

struct Range {
  double low, high;
};

struct Tick {
  double value;
  std::string text;
};

// What the vertical axis spans. The bottom is the smallest value, the top usually the largest. But
// a loss that starts at 11 and lives between 3 and 4 should not spend its chart on the first steps:
// each curve may overlook its highest 2 % of values (its first value alone, when it has 5 to 49
// values and starts at its peak), and does so where the rest needs less than a third of the
// height. Overlooked values leave the chart through its upper edge.
Range y_range(const Plot& plot);

// Round values inside the range, roughly `count` of them: 1, 2 or 5 times a power of ten.
std::vector<Tick> ticks(Range range, bool log, int count);

// Told apart by colour-blind eyes too (Okabe & Ito, 2008, without the yellow that white swallows).
// The palette repeats; write_png draws the repeats dashed.
Rgb curve_color(std::size_t index);

}  // namespace murmur
