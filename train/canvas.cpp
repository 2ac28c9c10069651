// train/canvas.cpp - how much of each pixel a shape covers, and what colour that leaves.
#include "train/canvas.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>
#include <utility>

#include "tensor/check.h"
#include "train/files.h"  // write_file_durably

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wpedantic"
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

namespace murmur {
namespace {

// How much of the pixel that starts at `pixel` lies between `from` and `to`.
double overlap(double from, double to, int pixel) {
  return std::min(to, pixel + 1.0) - std::max(from, static_cast<double>(pixel));
}

double square(double v) { return v * v; }
int floor_int(double v) { return static_cast<int>(std::floor(v)); }
int ceil_int(double v) { return static_cast<int>(std::ceil(v)); }

}  // namespace

Canvas::Canvas(int width, int height)
    : width_(width),
      height_(height),
      pixels_(3 * std::size_t(width) * height, 1.0f),
      coverage_(std::size_t(width) * height),
      ink_(std::size_t(width) * height) {}

void Canvas::cover(int x, int y, double amount) {
  if (x < 0 || y < 0 || x >= width_ || y >= height_) return;
  float& covered = coverage_[static_cast<std::size_t>(y) * width_ + x];
  covered = std::max(covered, static_cast<float>(std::clamp(amount, 0.0, 1.0)));
}

void Canvas::box(Box box) {
  for (int y = floor_int(box.top); y < box.bottom; y++) {
    for (int x = floor_int(box.left); x < box.right; x++) {
      cover(x, y, overlap(box.left, box.right, x) * overlap(box.top, box.bottom, y));
    }
  }
}

// Liang & Barsky, 1984.
bool cut(Point& a, Point& b, const Box& box) {
  const double dx = b.x - a.x, dy = b.y - a.y;
  double enter = 0, leave = 1;
  const std::array<std::pair<double, double>, 4> edges = {
      {{-dx, a.x - box.left}, {dx, box.right - a.x}, {-dy, a.y - box.top}, {dy, box.bottom - a.y}}};
  for (const auto& [outward, room] : edges) {
    if (outward == 0 && room < 0) return false;
    if (outward < 0) enter = std::max(enter, room / outward);
    if (outward > 0) leave = std::min(leave, room / outward);
  }
  if (enter > leave) return false;
  // Clamped, because an end far away leaves no digits for the near one.
  const auto inside = [&](double along) {
    return Point{std::clamp(a.x + along * dx, box.left, box.right),
                 std::clamp(a.y + along * dy, box.top, box.bottom)};
  };
  std::tie(a, b) = std::pair{inside(enter), inside(leave)};
  return true;
}

void Canvas::stroke(Point a, Point b, double radius, const Box& clip) {
  const double reach = radius + 1;
  const Box near{clip.left - reach, clip.top - reach, clip.right + reach, clip.bottom + reach};
  if (!cut(a, b, near)) return;
  const double dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy;
  const int top = floor_int(std::max(clip.top, std::min(a.y, b.y) - reach));
  const int bottom = ceil_int(std::min(clip.bottom, std::max(a.y, b.y) + reach));
  const int left = floor_int(std::max(clip.left, std::min(a.x, b.x) - reach));
  const int right = ceil_int(std::min(clip.right, std::max(a.x, b.x) + reach));
  for (int y = top; y < bottom; y++) {
    for (int x = left; x < right; x++) {
      const double px = x + 0.5 - a.x, py = y + 0.5 - a.y;
      const double along = length2 > 0 ? std::clamp((px * dx + py * dy) / length2, 0.0, 1.0) : 0;
      cover(x, y, radius + 0.5 - std::sqrt(square(px - along * dx) + square(py - along * dy)));
    }
  }
}

void Canvas::band(Point low_a, Point high_a, Point low_b, Point high_b, const Box& clip) {
  const double span = low_b.x - low_a.x;
  const int left = floor_int(std::max(clip.left, low_a.x));
  const int right = ceil_int(std::min(clip.right, low_b.x));
  for (int x = left; x < right; x++) {
    const double along = span > 0 ? std::clamp((x + 0.5 - low_a.x) / span, 0.0, 1.0) : 0;
    const double low = low_a.y + along * (low_b.y - low_a.y);
    const double high = high_a.y + along * (high_b.y - high_a.y);
    const double bottom = std::clamp(low, clip.top, clip.bottom);
    const double top = std::clamp(high, clip.top, clip.bottom);
    for (int y = floor_int(top); y < bottom; y++) cover(x, y, overlap(top, bottom, y));
  }
}

void Canvas::text(const TextImage& image, double x, double y, double align, bool upright) {
  const int start = static_cast<int>(
      std::lround(upright ? y + align * image.width - 1 : x - align * image.width));
  const int middle = static_cast<int>(std::lround(upright ? x : y));
  for (int row = 0; row < image.height; row++) {
    for (int column = 0; column < image.width; column++) {
      const double grey = image.grey[static_cast<std::size_t>(row) * image.width + column] / 255.0;
      const int across = middle + row - image.middle;
      if (upright) {
        cover(across, start - column, grey);
      } else {
        cover(start + column, across, grey);
      }
    }
  }
}

void Canvas::paint(Rgb color, double alpha) {
  const std::array<float, 3> target = {color.r / 255.0f, color.g / 255.0f, color.b / 255.0f};
  for (std::size_t i = 0; i < ink_.size(); i++) {
    if (coverage_[i] == 0) continue;
    const float amount = coverage_[i] * static_cast<float>(alpha);
    for (int c = 0; c < 3; c++) pixels_[3 * i + c] += amount * (target[c] - pixels_[3 * i + c]);
    ink_[i] += amount;
    coverage_[i] = 0;
  }
}

double Canvas::ink_in(const Box& box) const {
  double sum = 0;
  for (int y = floor_int(box.top); y < box.bottom; y++) {
    for (int x = floor_int(box.left); x < box.right; x++) sum += ink_[y * width_ + x];
  }
  return sum;
}

void Canvas::forget_ink() { std::fill(ink_.begin(), ink_.end(), 0.0f); }

void Canvas::write_png(const std::string& path) const {
  std::vector<unsigned char> bytes(pixels_.size());
  for (std::size_t i = 0; i < bytes.size(); i++) {
    bytes[i] = static_cast<unsigned char>(std::lround(255 * std::clamp(pixels_[i], 0.0f, 1.0f)));
  }
  std::string png;
  const auto collect = [](void* to, void* data, int size) {
    static_cast<std::string*>(to)->append(static_cast<const char*>(data), size);
  };
  check(stbi_write_png_to_func(collect, &png, width_, height_, 3, bytes.data(), 3 * width_) != 0,
        [&] { return path + ": no memory left to compress this picture"; });
  write_file_durably(path, png);
}

}  // namespace murmur
