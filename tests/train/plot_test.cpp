// tests/train/plot_test.cpp - pictures are read back and looked at: size, colours, gaps, text.
#include "train/plot.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "tests/train/temporary_folder.h"
#include "train/files.h"
#include "train/font.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wunused-function"
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_PNG
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

using namespace murmur;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Region {
  int left = 0, top = 0, right = kPlotWidth, bottom = kPlotHeight;
};

// Inside the axes and clear of the frame, its numbers and the title, whatever the layout does.
constexpr Region kInside{140, 70, 1150, 650};
constexpr Region kLeftHalf{140, 70, 600, 650}, kRightHalf{700, 70, 1150, 650};

class Picture {
 public:
  explicit Picture(const Plot& plot) {
    TemporaryFolder folder;
    write_png(plot, folder / "plot.png");
    int channels = 0;
    unsigned char* data = stbi_load((folder / "plot.png").c_str(), &width, &height, &channels, 3);
    REQUIRE_MESSAGE(data != nullptr, "not a PNG: ", stbi_failure_reason());
    pixels_.assign(data, data + std::size_t(width) * height * 3);
    stbi_image_free(data);
  }

  // How many pixels of the region are within a few steps of the colour.
  int count(Rgb color, Region region = {}) const {
    int found = 0;
    for (int y = region.top; y < region.bottom; y++) {
      for (int x = region.left; x < region.right; x++) found += is(color, x, y);
    }
    return found;
  }

  // The mean row of the pixels of this colour; -1: none.
  double mean_row(Rgb color, Region region) const {
    double sum = 0, found = 0;
    for (int y = region.top; y < region.bottom; y++) {
      for (int x = region.left; x < region.right; x++) {
        if (is(color, x, y)) sum += y, found++;
      }
    }
    return found > 0 ? sum / found : -1;
  }

  bool operator==(const Picture& other) const { return pixels_ == other.pixels_; }

  int width = 0, height = 0;

 private:
  bool is(Rgb color, int x, int y) const {
    const unsigned char* p = &pixels_[(std::size_t(y) * width + x) * 3];
    return std::abs(p[0] - color.r) < 6 && std::abs(p[1] - color.g) < 6 &&
           std::abs(p[2] - color.b) < 6;
  }

  std::vector<unsigned char> pixels_;
};

constexpr Rgb kTextColor{50, 50, 55};

Plot plot_of(std::vector<double> x, std::vector<double> y) {
  Plot plot;
  plot.curves.push_back({.label = "", .x = std::move(x), .y = std::move(y)});
  return plot;
}

std::vector<double> range_of(Range range) { return {range.low, range.high}; }

std::string tick_row(Range range, bool log, int count) {
  std::string row;
  for (const Tick& tick : ticks(range, log, count)) row += (row.empty() ? "" : " ") + tick.text;
  return row;
}

// A loss that falls from 11 and settles at 3.
std::vector<double> falling(int count) {
  std::vector<double> loss;
  for (int i = 0; i < count; i++) loss.push_back(3 + 8 * std::exp(-i / 5.0) + 1e-4 * (count - i));
  return loss;
}

std::vector<double> up_to(int count) {
  std::vector<double> x;
  for (int i = 0; i < count; i++) x.push_back(i);
  return x;
}

}  // namespace

TEST_CASE("the font inside the binary is a TrueType font that draws letters") {
  REQUIRE(font_bytes().size() > 10000);
  CHECK(font_bytes()[1] == 1);  // a TrueType file opens with 00 01 00 00
  const auto ink = [](const TextImage& image) {
    long sum = 0;
    for (unsigned char grey : image.grey) sum += grey;
    return sum;
  };
  const TextImage narrow = set_text("ii", 20, 1000), wide = set_text("WW", 20, 1000);
  CHECK(wide.width > 2 * narrow.width);
  CHECK(ink(wide) > ink(narrow));
  CHECK(ink(narrow) > 255 * 20);
  CHECK(ink(set_text("", 20, 1000)) == 0);
  CHECK(set_text("µ ± σ", 20, 1000).width < set_text("Âµ Â± Ïƒ", 20, 1000).width);  // UTF-8
  CHECK(ink(set_text("\xff\xc3", 20, 1000)) > 0);  // broken UTF-8 is drawn as such
}

TEST_CASE("text that is too wide ends in an ellipsis") {
  const TextImage whole = set_text("a long legend entry", 20, 1000);
  const TextImage cut = set_text("a long legend entry", 20, 90);
  CHECK(whole.width > 150);
  CHECK(cut.width <= 90 + 6);
  CHECK(cut.width > 60);
  std::string kept = "a long legend entry";
  while (!kept.empty() && set_text(kept + "…", 20, 1000).grey != cut.grey) kept.pop_back();
  CHECK(kept.size() > 4);
}

TEST_CASE("a picture has the promised size, and text where title and labels belong") {
  Plot plot = plot_of({0, 1, 2}, {3, 2, 1});
  const Picture bare(plot);
  CHECK(bare.width == kPlotWidth);
  CHECK(bare.height == kPlotHeight);
  plot.title = "title";
  plot.x_label = "steps";
  plot.y_label = "loss";
  const Picture labelled(plot);
  const Region title{300, 0, 900, 55}, below{300, 710, 900, kPlotHeight};
  const Region beside{0, 200, 40, 500};
  CHECK(bare.count(kTextColor, title) == 0);
  CHECK(labelled.count(kTextColor, title) > 50);
  CHECK(labelled.count(kTextColor, below) > 50);
  CHECK(labelled.count(kTextColor, beside) > 30);
}

TEST_CASE("a curve has its colour and goes where its values are") {
  Plot plot = plot_of({0, 1}, {0, 10});
  plot.curves.push_back({.label = "", .x = {0, 1}, .y = {10, 0}});
  const Picture picture(plot);
  const Rgb rising = curve_color(0), falling = curve_color(1);
  CHECK(picture.count(rising, kInside) > 1000);
  CHECK(picture.mean_row(rising, kLeftHalf) > picture.mean_row(rising, kRightHalf) + 100);
  CHECK(picture.mean_row(falling, kLeftHalf) < picture.mean_row(falling, kRightHalf) - 100);
  CHECK(picture.count(curve_color(2)) == 0);
}

TEST_CASE("values without a place leave a gap, and nothing else") {
  std::vector<double> y(100, 5.0);
  y[0] = 4, y[99] = 6;
  const Picture whole(plot_of(up_to(100), y));
  for (double hole : {kNaN, kInfinity, -kInfinity}) {
    CAPTURE(hole);
    std::vector<double> broken = y;
    for (int i = 40; i < 60; i++) broken[i] = hole;
    const Picture picture(plot_of(up_to(100), broken));
    const Region middle{560, 70, 690, 650};
    CHECK(whole.count(curve_color(0), middle) > 200);
    CHECK(picture.count(curve_color(0), middle) == 0);
    CHECK(picture.count(curve_color(0), kLeftHalf) > 600);
    CHECK(picture.count(curve_color(0), kRightHalf) > 600);
  }
  Plot log_plot = plot_of(up_to(100), y);
  for (int i = 40; i < 60; i++) log_plot.curves[0].y[i] = i % 2 ? 0 : -1;
  log_plot.log_y = true;
  CHECK(Picture(log_plot).count(curve_color(0), Region{560, 70, 690, 650}) == 0);
}

TEST_CASE("plots without much in them are pictures all the same") {
  const int dot = 30;  // pixels at least
  CHECK(Picture(Plot{}).count(curve_color(0)) == 0);
  CHECK(Picture(plot_of({}, {})).count(curve_color(0)) == 0);
  CHECK(Picture(plot_of({kNaN, 1}, {1, kNaN})).count(curve_color(0)) == 0);
  CHECK(Picture(plot_of({7}, {3})).count(curve_color(0), kInside) > dot);
  CHECK(Picture(plot_of({0, 1, 2}, {kNaN, 3, kNaN})).count(curve_color(0), kInside) > dot);
  CHECK(Picture(plot_of({1, 1}, {1, 2})).count(curve_color(0), kInside) > 500);  // upright
  for (double level : {0.0, -2.5, 1e-300, 1e12, 9e99}) {
    CAPTURE(level);
    for (bool log : {false, true}) {
      Plot constant = plot_of({0, 10}, {level, level});
      constant.log_y = log;
      const bool visible = !log || level > 1e-100;
      CHECK((Picture(constant).count(curve_color(0), kInside) > 1000) == visible);
    }
  }
}

TEST_CASE("extreme values do not break the drawing") {
  for (bool log : {false, true}) {
    CAPTURE(log);
    Plot plot = plot_of({0, 1, 2, 3}, {-1e99, 1e300, 1e99, 1e-200});
    plot.curves.push_back({.label = "tiny", .x = {0, 1}, .y = {1e-99, 2e-99}});
    plot.log_y = log;
    CHECK(Picture(plot).count(kTextColor) > 50);
    plot.log_x = log;
    CHECK(Picture(plot).count(kTextColor) > 50);
  }
  CHECK(Picture(plot_of({1e15, 1e15 + 1}, {1, 1 + 1e-15})).count(curve_color(0)) > 0);
  std::vector<double> spiky = falling(2000);
  spiky[1000] = 1e99;  // leaves the chart upwards, and comes back
  CHECK(Picture(plot_of(up_to(2000), spiky)).count(curve_color(0), kInside) > 2000);
}

TEST_CASE("a band is a pale area between its limits") {
  Plot plot = plot_of({0, 1}, {5, 5});
  const Picture line(plot);
  plot.curves[0].low = {3, 3};
  plot.curves[0].high = {7, 7};
  const Rgb blue = curve_color(0);
  const auto pale = [&](int c) {
    return static_cast<unsigned char>(std::lround(255 - 0.18 * (255 - c)));
  };
  const Rgb band{pale(blue.r), pale(blue.g), pale(blue.b)};
  CHECK(line.count(band, kInside) < 100);
  CHECK(Picture(plot).count(band, kInside) > 100000);
  plot.curves[0].high[1] = kNaN;
  CHECK(Picture(plot).count(band, kInside) < 100);
}

TEST_CASE("faint curves share the colour of the curve they belong to") {
  Plot plot;
  plot.curves.push_back({.label = "", .x = {0, 1}, .y = {1, 1}, .faint = true});
  plot.curves.push_back({.label = "", .x = {0, 1}, .y = {2, 2}});
  plot.curves.push_back({.label = "", .x = {0, 1}, .y = {3, 3}});
  const Picture picture(plot);
  CHECK(picture.mean_row(curve_color(0), kInside) > picture.mean_row(curve_color(1), kInside) + 50);
  CHECK(picture.count(curve_color(2), kInside) == 0);
}

TEST_CASE("when the palette repeats, the repeats are dashed") {
  Plot plot;
  for (int i = 0; i < 8; i++)
    plot.curves.push_back({.label = "", .x = {0, 1}, .y = {1.0 * i, 1.0 * i}});
  const Rgb color = curve_color(0);
  REQUIRE(curve_color(7).r == color.r);
  const Picture picture(plot);
  const int solid = picture.count(color, Region{140, 360, 1150, 700});
  const int dashed = picture.count(color, Region{140, 20, 1150, 360});
  CHECK(solid > 1000);
  CHECK(dashed > 0.4 * solid);
  CHECK(dashed < 0.9 * solid);
}

TEST_CASE("the legend goes where it hides nothing") {
  for (bool rising : {true, false}) {
    CAPTURE(rising);
    Plot plot = plot_of({0, 1}, rising ? std::vector<double>{0, 1} : std::vector<double>{1, 0});
    plot.curves[0].label = "a curve of some renown";
    const Picture picture(plot);
    const Region left{110, 30, 500, 200}, right{800, 30, 1170, 200};
    CHECK((picture.count(kTextColor, left) > 100) == rising);  // a free corner is at the top
    CHECK((picture.count(kTextColor, right) > 100) == !rising);
  }
}

TEST_CASE("a long legend stands beside the curves") {
  Plot plot;
  for (int i = 0; i < 9; i++)
    plot.curves.push_back({.label = "", .x = {0, 1}, .y = {1.0 * i, 1.0 * i}});
  const Region right_end{1020, 600, 1150, 700};  // the ninth part of the lowest curve
  CHECK(Picture(plot).count(curve_color(0), right_end) > 200);
  for (Curve& curve : plot.curves) curve.label = "a longish label";
  CHECK(Picture(plot).count(curve_color(0), right_end) == 0);
}

TEST_CASE("a legend of any length is shown to its end") {
  Plot plot;  // of 60 entries the last alone has the second colour
  for (int i = 0; i < 59; i++) {
    plot.curves.push_back({.label = "curve", .x = {0}, .y = {kNaN}, .faint = true});
  }
  plot.curves.push_back({.label = "", .x = {0}, .y = {kNaN}});
  plot.curves.push_back({.label = "last", .x = {0}, .y = {kNaN}});
  CHECK(Picture(plot).count(curve_color(1)) > 40);
}

TEST_CASE("the first huge values of a loss do not flatten the rest") {
  const Range shown = y_range(plot_of(up_to(1000), falling(1000)));
  CHECK(shown.low < 3.001);
  CHECK(shown.low > 2.8);
  CHECK(shown.high < 4);
  CHECK(shown.high > 3.1);
  // a few evaluations, the first before training
  const Range evaluations = y_range(plot_of(up_to(6), {10.9, 4.2, 3.9, 3.7, 3.6, 3.5}));
  CHECK(evaluations.high < 5);
  CHECK(evaluations.high > 4.2);
  // a curve that lives high up is not an outlier
  Plot two = plot_of(up_to(1000), falling(1000));
  two.curves.push_back({.label = "", .x = {0, 500, 900}, .y = {9, 9, 9}});
  CHECK(y_range(two).high > 9);
}

TEST_CASE("ordinary curves are shown whole") {
  struct Case {
    const char* name;
    std::vector<double> y;
  };
  const std::vector<Case> cases = {
      {"straight", up_to(1000)},
      {"a short start", {4.2, 3.5, 3.0, 2.7, 2.5, 2.4}},
      {"a late jump", {1, 1.1, 1, 1.1, 1, 9}},
      {"one spike on a constant", {0, 0, 0, 0, 0, 0, 5, 0, 0, 0}},
      {"two points", {1, 100}},
      {"powers", {64, 32, 16, 8, 4, 2, 1}},
  };
  for (const Case& c : cases) {
    CAPTURE(c.name);
    const Range shown = y_range(plot_of(up_to(int(c.y.size())), c.y));
    CHECK(shown.high >= *std::max_element(c.y.begin(), c.y.end()));
    CHECK(shown.low <= *std::min_element(c.y.begin(), c.y.end()));
  }
  CHECK(range_of(y_range(Plot{})) == std::vector<double>{0, 1});
}

TEST_CASE("ticks are round numbers, written briefly") {
  CHECK(tick_row({0, 1}, false, 5) == "0 0.2 0.4 0.6 0.8 1.0");
  CHECK(tick_row({2.9, 4.1}, false, 6) == "3.0 3.2 3.4 3.6 3.8 4.0");
  CHECK(tick_row({-1, 1}, false, 4) == "-1.0 -0.5 0 0.5 1.0");
  CHECK(tick_row({0, 5000}, false, 5) == "0 1000 2000 3000 4000 5000");
  CHECK(tick_row({0, 12000}, false, 5) == "0 5k 10k");
  CHECK(tick_row({18000, 18500}, false, 5) == "18.0k 18.1k 18.2k 18.3k 18.4k 18.5k");
  CHECK(tick_row({0, 3e6}, false, 6) == "0 0.5M 1.0M 1.5M 2.0M 2.5M 3.0M");
  CHECK(tick_row({0, 3e9}, false, 3) == "0 1B 2B 3B");
  CHECK(tick_row({0, 2e-5}, false, 4) == "0 5e-6 1.0e-5 1.5e-5 2.0e-5");
  CHECK(tick_row({0, 2e13}, false, 2) == "0 1e13 2e13");
  CHECK(tick_row({1, 1000}, true, 8) == "1 10 100 1000");
  CHECK(tick_row({0.09, 11}, true, 8) == "0.1 0.2 0.5 1 2 5 10");
  CHECK(tick_row({1e-5, 0.1}, true, 8) == "1e-5 1e-4 1e-3 1e-2 1e-1");
  CHECK(tick_row({1e-20, 1}, true, 5) == "1e-20 1e-16 1e-12 1e-8 1e-4 1");
  CHECK(tick_row({2.9, 4.1}, true, 6) == "3.0 3.2 3.4 3.6 3.8 4.0");  // no power of ten inside
}

TEST_CASE("the same plot is the same file, written whole") {
  TemporaryFolder folder;
  const Plot plot = plot_of({0, 1}, {1, 2});
  write_png(plot, folder / "a.png");
  put_bytes(folder / "b.png", "an older picture");
  write_png(plot, folder / "b.png");
  CHECK(read_file(folder / "a.png") == read_file(folder / "b.png"));
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 2);
}

TEST_CASE("failures say which file and which curve") {
  const Plot plot = plot_of({0, 1}, {1, 2});
  CHECK_THROWS_WITH_AS(write_png(plot, "/nowhere/at/all.png"),
                       doctest::Contains("/nowhere/at/all.png"), Error);
  Plot uneven = plot;
  uneven.curves[0].label = "muon";
  uneven.curves[0].y.pop_back();
  CHECK_THROWS_WITH_AS(write_png(uneven, "unused.png"),
                       "plot: curve 'muon' has 2 x, 1 y, 0 low and 0 high values; one each?",
                       Error);
  Plot half_band = plot;
  half_band.curves[0].low = {0, 0};
  CHECK_THROWS_AS(write_png(half_band, "unused.png"), Error);
}
