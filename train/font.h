// train/font.h - the typeface of the plots, carried inside the binary, and text set in it.
#pragma once

#include <span>
#include <string_view>
#include <vector>

namespace murmur {

// A TrueType file, byte for byte (DejaVu Sans, unless the build names another); empty, and said in
// one line, where the build found none.
std::span<const unsigned char> font_bytes();

// One line of text as a grey image: 0 is paper, 255 is ink.
struct TextImage {
  int width = 0, height = 0;
  int middle = 0;                   // the row halfway up a capital letter
  std::vector<unsigned char> grey;  // height rows of width
};

// `size` in pixels per em. Text (UTF-8) wider than `max_width` ends in an ellipsis.
TextImage set_text(std::string_view text, double size, double max_width);

}  // namespace murmur
