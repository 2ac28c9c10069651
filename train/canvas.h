// train/canvas.h - an antialiased picture in memory: boxes, strokes, bands and text; a PNG file at
// the end.
#pragma once

#include <string>
#include <vector>

#include "train/font.h"  // TextImage

namespace murmur {

struct Rgb {
  unsigned char r, g, b;
};

// In pixels, from the upper left corner.
struct Point {
  double x, y;
};

struct Box {
  double left, top, right, bottom;
};

inline constexpr Rgb kText{50, 50, 55}, kFrame{120, 120, 125}, kGrid{226, 227, 231};
inline constexpr Rgb kPaper{255, 255, 255};

// Shapes first gather as coverage and are then painted in one colour: a curve that crosses itself
// keeps one even tone, and a pixel that a shape half covers is half painted.
class Canvas {
 public:
  Canvas(int width, int height);  // white
  int width() const { return width_; }
  int height() const { return height_; }

  void box(Box box);
  void stroke(Point a, Point b, double radius, const Box& clip);  // round ends; a == b: a dot
  void band(Point low_a, Point high_a, Point low_b, Point high_b, const Box& clip);
  // `x`, `y`: the point of the text that `align` (0 start, 0.5 centre, 1 end) names.
  void text(const TextImage& image, double x, double y, double align, bool upright = false);

  void paint(Rgb color, double alpha = 1);
  double ink_in(const Box& box) const;  // how much curves have painted there
  void forget_ink();
  // Written aside and renamed, so that a viewer never sees half a file. Error names the path.
  void write_png(const std::string& path) const;

 private:
  void cover(int x, int y, double amount);

  int width_, height_;
  std::vector<float> pixels_, coverage_, ink_;
};

// Cuts the segment to the box; false if nothing is left.
bool cut(Point& a, Point& b, const Box& box);

}  // namespace murmur
