// train/plot.cpp - from numbers to pixels: ranges, ticks, curves, a legend.
#include "train/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <tuple>
#include <utility>

#include "tensor/check.h"
#include "train/font.h"  // set_text

namespace murmur {
namespace {

constexpr Rgb kPalette[] = {{0, 114, 178}, {213, 94, 0},   {0, 158, 115}, {204, 121, 167},
                            {230, 159, 0}, {86, 180, 233}, {90, 90, 90}};

// ------------------------------------------------------------------------------- ranges and ticks

constexpr double kNowhere = std::numeric_limits<double>::quiet_NaN();

// Where a value lies along an axis, in the axis's own unit: its logarithm on a log axis.
double along_axis(double value, bool log) { return log ? std::log10(value) : value; }
double value_at(double where, bool log) { return log ? std::pow(10, where) : where; }

// The same for data, some of which lies nowhere (NaN). Beyond 1e100 a number counts as infinite and
// below 1e-100 as zero, so that no sum overflows.
double place(double value, bool log) {
  if (!(std::abs(value) < 1e100)) return kNowhere;
  if (std::abs(value) < 1e-100) value = 0;
  return log && value <= 0 ? kNowhere : along_axis(value, log);
}

std::vector<double> places(const std::vector<double>& values, bool log) {
  std::vector<double> found;
  for (double value : values) {
    if (double where = place(value, log); std::isfinite(where)) found.push_back(where);
  }
  return found;
}

// The rule described in plot.h; `bottom` is the lowest value of all curves.
double top_worth_showing(std::vector<double> values, double bottom) {
  const std::size_t n = values.size();
  const double first = values.front();
  std::sort(values.begin(), values.end());
  const double top = values.back();
  std::size_t overlooked = n / 50;
  if (n >= 5 && n < 50 && first == top) overlooked = 1;
  const double rest = values[n - 1 - overlooked];
  const bool far_above = rest > bottom && top - bottom > 3 * (rest - bottom);
  return far_above ? rest + 0.1 * (rest - bottom) : top;
}

// Widens by a fraction of the span, or, where there is no span, enough to make one.
Range padded(double low, double high, double fraction) {
  const double size = std::max(std::abs(low), std::abs(high));
  double pad = fraction * (high - low);
  if (high - low <= 1e-12 * size) pad = size > 0 ? 0.1 * size : 1;
  return {low - pad, high + pad};
}

// On a log axis a constant is padded by a factor instead: half a decade either way.
Range values_between(double low, double high, double fraction, bool log) {
  const Range wide =
      log && high - low < 1e-12 ? Range{low - 0.5, high + 0.5} : padded(low, high, fraction);
  return {value_at(wide.low, log), value_at(wide.high, log)};
}

Range x_range(const Plot& plot) {
  std::vector<double> all;
  for (const Curve& curve : plot.curves) {
    for (double where : places(curve.x, plot.log_x)) all.push_back(where);
  }
  if (all.empty()) return plot.log_x ? Range{1, 10} : Range{0, 1};
  const auto [low, high] = std::minmax_element(all.begin(), all.end());
  return values_between(*low, *high, 0.02, plot.log_x);
}

// A number as a tick shows it: as many decimals as `step` needs, in thousands (k), millions (M) or
// billions (B) when `largest`, the largest of its row, has more than four digits.
std::string tick_text(double value, double largest, double step) {
  if (value == 0) return "0";
  if (largest >= 1e13 || largest < 1e-3) {
    const auto exponent_of = [](double v) { return std::floor(std::log10(std::abs(v)) + 1e-9); };
    const int digits = std::clamp<int>(exponent_of(value) - exponent_of(step), 0, 9);
    std::string text = fmt::format("{:.{}e}", value, digits);
    const std::size_t exponent = text.find('e') + 2;  // 2e-05 -> 2e-5, 1e+13 -> 1e13
    while (text[exponent] == '0') text.erase(exponent, 1);
    if (text[exponent - 1] == '+') text.erase(exponent - 1, 1);
    return text;
  }
  const auto [unit, suffix] = largest >= 1e9   ? std::pair{1e9, "B"}
                              : largest >= 1e6 ? std::pair{1e6, "M"}
                              : largest >= 1e4 ? std::pair{1e3, "k"}
                                               : std::pair{1.0, ""};
  const int decimals = std::clamp<int>(std::ceil(-std::log10(step / unit) - 1e-6), 0, 12);
  return fmt::format("{:.{}f}{}", value / unit, decimals, suffix);
}

std::vector<Tick> even_ticks(Range range, int count) {
  const double coarse = (range.high - range.low) / count;
  const double power = std::pow(10, std::floor(std::log10(coarse)));
  double step = 10 * power;
  for (double factor : {5, 2, 1}) {
    if (factor * power >= 0.999 * coarse) step = factor * power;
  }
  std::vector<Tick> row;
  const double largest = std::max(std::abs(range.low), std::abs(range.high));
  for (double k = std::ceil(range.low / step - 1e-9); k * step <= range.high + 1e-9 * step; k++) {
    row.push_back({k * step, tick_text(k * step, largest, step)});
  }
  return row;
}

std::vector<Tick> log_ticks(Range range, int count) {
  const double low = std::log10(range.low), high = std::log10(range.high);
  const bool between = high - low < 3;  // also 2 and 5 times a power of ten
  const double stride = std::max(1.0, std::ceil((high - low) / count));
  const bool tiny = range.low < 5e-4;  // then 0.01 is written 1e-2, like its neighbours
  std::vector<Tick> row;
  for (double e = stride * std::floor(low / stride); e <= high; e += stride) {
    for (double factor : {1, 2, 5}) {
      const double value = factor * std::pow(10, e);
      const double where = std::log10(value);
      if ((factor == 1 || between) && where >= low - 1e-9 && where <= high + 1e-9) {
        row.push_back({value, tick_text(value, tiny && value < 0.5 ? 0 : value, value)});
      }
    }
  }
  return row;
}

// ----------------------------------------------------------------------------------------- chart

struct Axis {
  bool log;
  double low, high;    // in the axis's own unit
  double first, last;  // the same two in pixels

  Axis(bool is_log, Range range, double first_pixel, double last_pixel)
      : log(is_log),
        low(along_axis(range.low, is_log)),
        high(along_axis(range.high, is_log)),
        first(first_pixel),
        last(last_pixel) {}

  double pixel(double where) const { return first + (where - low) / (high - low) * (last - first); }
  double pixel(const Tick& tick) const { return pixel(along_axis(tick.value, log)); }
};

struct Chart {
  Canvas& canvas;
  Box whole;  // its part of the canvas
  Box area;   // inside the axes
  Axis x, y;

  Point point(double at_x, double at_y) const {
    return {x.pixel(place(at_x, x.log)), y.pixel(place(at_y, y.log))};
  }
};

constexpr double kTitleSize = 25, kLabelSize = 19, kTickSize = 17;
constexpr double kLineRadius = 1.3, kFaintRadius = 0.7, kDotRadius = 4.2;

// How long the dashes of a curve are: 0, unbroken, on the palette's first round, then long and
// short.
double dash_of(std::size_t style) {
  const std::size_t round = style / std::size(kPalette);
  return round == 0 ? 0 : round % 2 == 1 ? 11 : 3;
}

bool drawn(Point p) { return std::isfinite(p.x) && std::isfinite(p.y); }

// `travelled` carries the phase of the dashes from segment to segment.
void draw_line(Canvas& canvas, Point a, Point b, double radius, double dash, double& travelled,
               const Box& clip) {
  if (dash == 0) return canvas.stroke(a, b, radius, clip);
  if (!cut(a, b, clip)) return;
  const double period = dash + 6, length = std::hypot(b.x - a.x, b.y - a.y);
  const auto at = [&](double distance) {
    const double along = length > 0 ? distance / length : 0;
    return Point{a.x + along * (b.x - a.x), a.y + along * (b.y - a.y)};
  };
  for (double start = -std::fmod(travelled, period); start < length; start += period) {
    const double from = std::max(start, 0.0), to = std::min(start + dash, length);
    if (from < to) canvas.stroke(at(from), at(to), radius, clip);
  }
  travelled += length;
}

void draw_band(Chart& chart, const Curve& curve, std::size_t style) {
  for (std::size_t i = 0; i + 1 < curve.low.size(); i++) {
    const Point low_a = chart.point(curve.x[i], curve.low[i]);
    const Point high_a = chart.point(curve.x[i], curve.high[i]);
    const Point low_b = chart.point(curve.x[i + 1], curve.low[i + 1]);
    const Point high_b = chart.point(curve.x[i + 1], curve.high[i + 1]);
    if (drawn(low_a) && drawn(high_a) && drawn(low_b) && drawn(high_b)) {
      chart.canvas.band(low_a, high_a, low_b, high_b, chart.area);
    }
  }
  chart.canvas.paint(curve_color(style), 0.18);
}

void draw_curve(Chart& chart, const Curve& curve, std::size_t style) {
  std::vector<Point> points;
  for (std::size_t i = 0; i < curve.x.size(); i++) {
    points.push_back(chart.point(curve.x[i], curve.y[i]));
  }
  const double radius = curve.faint ? kFaintRadius : kLineRadius;
  double travelled = 0;
  bool joined = false;  // to the point before
  for (std::size_t i = 0; i < points.size(); i++) {
    const bool here = drawn(points[i]);
    const bool joins = here && i + 1 < points.size() && drawn(points[i + 1]);
    const bool alone = here && !joined && !joins;  // without a dot it would be invisible
    if (joins) {
      draw_line(chart.canvas, points[i], points[i + 1], radius, dash_of(style), travelled,
                chart.area);
    }
    if (alone || (here && curve.markers)) {
      chart.canvas.stroke(points[i], points[i], kDotRadius, chart.area);
    }
    joined = joins;
  }
  chart.canvas.paint(curve_color(style), curve.faint ? 0.32 : 1);
}

void draw_grid(Chart& chart, const std::vector<Tick>& across, const std::vector<Tick>& up) {
  const Box& area = chart.area;
  for (const Tick& tick : across) {
    const double x = std::floor(chart.x.pixel(tick));
    chart.canvas.box({x, area.top, x + 1, area.bottom});
  }
  for (const Tick& tick : up) {
    const double y = std::floor(chart.y.pixel(tick));
    chart.canvas.box({area.left, y, area.right, y + 1});
  }
  chart.canvas.paint(kGrid);
}

void draw_frame(Chart& chart, const std::vector<Tick>& across, const std::vector<Tick>& up) {
  const Box& area = chart.area;
  Canvas& canvas = chart.canvas;
  canvas.box({area.left - 1, area.top, area.left + 0.5, area.bottom + 1});
  canvas.box({area.left - 1, area.bottom - 0.5, area.right, area.bottom + 1});
  canvas.paint(kFrame);
  double free_from = chart.whole.left;  // a label that would touch the one before is left out
  for (const Tick& tick : across) {
    const TextImage label = set_text(tick.text, kTickSize, kPlotWidth);
    const double x = chart.x.pixel(tick);
    if (x - 0.5 * label.width < free_from) continue;
    free_from = x + 0.5 * label.width + 6;
    canvas.text(label, x, area.bottom + 18, 0.5);
  }
  for (const Tick& tick : up) {
    canvas.text(set_text(tick.text, kTickSize, kPlotWidth), area.left - 8, chart.y.pixel(tick), 1);
  }
  canvas.paint(kText);
}

void draw_titles(Chart& chart, const Plot& plot) {
  const Box& area = chart.area;
  const double centre_x = 0.5 * (area.left + area.right), centre_y = 0.5 * (area.top + area.bottom);
  chart.canvas.text(set_text(plot.title, kTitleSize, area.right - area.left), centre_x,
                    chart.whole.top + 32, 0.5);
  chart.canvas.text(set_text(plot.x_label, kLabelSize, area.right - area.left), centre_x,
                    chart.whole.bottom - 22, 0.5);
  chart.canvas.text(set_text(plot.y_label, kLabelSize, area.bottom - area.top),
                    chart.whole.left + 24, centre_y, 0.5, true);
  chart.canvas.paint(kText);
}

// Which colour a curve has: the faint ones share that of the first curve after them that is not.
std::vector<std::size_t> styles(const std::vector<Curve>& curves) {
  std::vector<std::size_t> style;
  std::size_t next = 0;
  for (const Curve& curve : curves) style.push_back(curve.faint ? next : next++);
  return style;
}

struct Legend {
  std::vector<TextImage> labels;  // of every curve; without width: not listed
  double row = 0, width = 0, height = 0;
};

constexpr double kSample = 30, kLegendMargin = 11, kLegendGap = 14;
constexpr int kMostInside = 8;  // entries; a longer legend would hide curves and stands beside them

Legend legend_of(const std::vector<Curve>& curves, double width, double height) {
  Legend legend{std::vector<TextImage>(curves.size())};
  const auto entries = std::count_if(curves.begin(), curves.end(),
                                     [](const Curve& curve) { return !curve.label.empty(); });
  if (entries == 0) return legend;
  legend.row = std::min(25.0, (height - 50) / entries);  // all must fit
  legend.height = std::ceil(legend.row * entries + kLegendMargin);
  double widest = 0;
  for (std::size_t i = 0; i < curves.size(); i++) {
    if (curves[i].label.empty()) continue;
    legend.labels[i] = set_text(curves[i].label, 0.68 * legend.row, 0.4 * width);
    widest = std::max<double>(widest, legend.labels[i].width);
  }
  legend.width = std::ceil(widest + kSample + 3 * kLegendMargin);
  return legend;
}

// Of the corners and the middles of the upper and lower edge, the place with the least ink.
Point quietest_place(const Chart& chart, const Legend& legend) {
  const Box& area = chart.area;
  const double right = area.right - kLegendGap - legend.width, left = area.left + kLegendGap;
  const double top = area.top + kLegendGap, bottom = area.bottom - kLegendGap - legend.height;
  Point best{};
  double least_ink = std::numeric_limits<double>::infinity();
  for (double y : {top, bottom}) {
    for (double x : {right, left, 0.5 * (left + right)}) {
      const double ink = chart.canvas.ink_in({x, y, x + legend.width, y + legend.height});
      if (ink < least_ink) std::tie(best, least_ink) = std::pair{Point{x, y}, ink};
    }
  }
  return {std::floor(best.x), std::floor(best.y)};
}

void draw_legend(Chart& chart, const std::vector<Curve>& curves, const Legend& legend, Point at) {
  Canvas& canvas = chart.canvas;
  const Box box{at.x, at.y, at.x + legend.width, at.y + legend.height};
  canvas.box(box);
  canvas.paint(kGrid);
  canvas.box({box.left + 1, box.top + 1, box.right - 1, box.bottom - 1});
  canvas.paint(kPaper, 0.95);
  const std::vector<std::size_t> style = styles(curves);
  Point from{box.left + kLegendMargin + 2, box.top + 0.5 * (legend.row + kLegendMargin)};
  for (std::size_t i = 0; i < curves.size(); i++) {
    if (legend.labels[i].width == 0) continue;
    const Point to{from.x + kSample, from.y}, centre{from.x + 0.5 * kSample, from.y};
    const double radius = curves[i].faint ? kFaintRadius : kLineRadius + 0.2;
    double travelled = 0;
    draw_line(canvas, from, to, radius, dash_of(style[i]), travelled, box);
    if (curves[i].markers) {
      canvas.stroke(centre, centre, std::min(kDotRadius, 0.4 * legend.row), box);
    }
    canvas.paint(curve_color(style[i]), curves[i].faint ? 0.4 : 1);
    canvas.text(legend.labels[i], to.x + kLegendMargin - 2, from.y, 0);
    canvas.paint(kText);
    from.y += legend.row;
  }
}

void check_lengths(const Curve& curve) {
  const std::size_t n = curve.x.size();
  const auto fits = [&](const std::vector<double>& v) { return v.empty() || v.size() == n; };
  const bool whole_band = curve.low.size() == curve.high.size();
  check(curve.y.size() == n && whole_band && fits(curve.low), [&] {
    return fmt::format("plot: curve '{}' has {} x, {} y, {} low and {} high values; one each?",
                       curve.label, n, curve.y.size(), curve.low.size(), curve.high.size());
  });
}

}  // namespace

Range y_range(const Plot& plot) {
  std::vector<std::vector<double>> series;
  for (const Curve& curve : plot.curves) {
    for (const std::vector<double>* values : {&curve.y, &curve.low, &curve.high}) {
      std::vector<double> found = places(*values, plot.log_y);
      if (!found.empty()) series.push_back(std::move(found));
    }
  }
  if (series.empty()) return plot.log_y ? Range{1, 10} : Range{0, 1};
  double bottom = std::numeric_limits<double>::infinity(), top = -bottom;
  for (const auto& values : series) {
    bottom = std::min(bottom, *std::min_element(values.begin(), values.end()));
  }
  for (const auto& values : series) top = std::max(top, top_worth_showing(values, bottom));
  return values_between(bottom, top, 0.04, plot.log_y);
}

std::vector<Tick> ticks(Range range, bool log, int count) {
  // Where a log axis spans less than a power of five, powers of ten are too rare.
  return log && range.high > 5 * range.low ? log_ticks(range, count) : even_ticks(range, count);
}

Rgb curve_color(std::size_t index) { return kPalette[index % std::size(kPalette)]; }

void draw(const Plot& plot, Canvas& canvas, const Box& whole) {
  for (const Curve& curve : plot.curves) check_lengths(curve);
  const Range x = x_range(plot), y = y_range(plot);
  const std::vector<Tick> across = ticks(x, plot.log_x, 10), up = ticks(y, plot.log_y, 8);
  int widest = 0;
  for (const Tick& tick : up) {
    widest = std::max(widest, set_text(tick.text, kTickSize, kPlotWidth).width);
  }
  const double top = whole.top + (plot.title.empty() ? 28 : 62);
  const double left = whole.left + widest + (plot.y_label.empty() ? 24 : 56);
  const double bottom = whole.bottom - (plot.x_label.empty() ? 44 : 78);
  const Legend legend = legend_of(plot.curves, whole.right - whole.left, bottom - top);
  const bool beside = legend.height > kMostInside * 25 + kLegendMargin;
  const Box area{left, top, whole.right - (beside ? legend.width + 2 * kLegendGap : 36), bottom};
  Chart chart{canvas,
              whole,
              area,
              {plot.log_x, x, area.left, area.right},
              {plot.log_y, y, area.bottom, area.top}};
  draw_grid(chart, across, up);
  chart.canvas.forget_ink();
  const std::vector<std::size_t> style = styles(plot.curves);
  for (std::size_t i = 0; i < style.size(); i++) draw_band(chart, plot.curves[i], style[i]);
  for (std::size_t i = 0; i < style.size(); i++) draw_curve(chart, plot.curves[i], style[i]);
  if (chart.canvas.ink_in(area) == 0) {
    chart.canvas.text(set_text("no data", kTitleSize, kPlotWidth), 0.5 * (area.left + area.right),
                      0.5 * (area.top + area.bottom), 0.5);
    chart.canvas.paint(kFrame);
  }
  if (legend.height > 0) {
    const Point outside{area.right + kLegendGap, area.top};
    draw_legend(chart, plot.curves, legend, beside ? outside : quietest_place(chart, legend));
  }
  draw_frame(chart, across, up);
  draw_titles(chart, plot);
}

void write_png(const Plot& plot, const std::string& path) {
  Canvas canvas(kPlotWidth, kPlotHeight);
  draw(plot, canvas, {0, 0, kPlotWidth, kPlotHeight});
  canvas.write_png(path);
}

}  // namespace murmur
