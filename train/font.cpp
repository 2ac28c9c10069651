// train/font.cpp - the assembler copies the font file into the object file; stb_truetype reads it.
//
// Embedded, because a plot must look the same on a machine without fonts; by .incbin, because a
// generated array of 750,000 numbers takes seconds to compile. The build defines the path for this
// one file: MURMUR_FONT_FILE = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf". Without it plots
// are drawn, but for their text.
#include "train/font.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tensor/check.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wpedantic"
#define STB_TRUETYPE_IMPLEMENTATION
#include <stb/stb_truetype.h>
#pragma GCC diagnostic pop

#ifdef MURMUR_FONT_FILE
// Global and hidden rather than local: with link-time optimisation this block and the function
// below may land in different object files.
asm(R"(
  .pushsection .rodata
  .global murmur_font_begin
  .hidden murmur_font_begin
  .global murmur_font_end
  .hidden murmur_font_end
  .balign 16
murmur_font_begin:
  .incbin ")" MURMUR_FONT_FILE R"("
murmur_font_end:
  .byte 0
  .popsection
)");

extern "C" {
[[gnu::visibility("hidden")]] extern const unsigned char murmur_font_begin[];
[[gnu::visibility("hidden")]] extern const unsigned char murmur_font_end[];
}
#endif

namespace murmur {

std::span<const unsigned char> font_bytes() {
#ifdef MURMUR_FONT_FILE
  return {murmur_font_begin, murmur_font_end};
#else
  [[maybe_unused]] static const bool said = [] {
    fmt::print(stderr,
               "murmur: plots have no text, since there was no font when murmur was built; "
               "install fonts-dejavu-core and build again\n");
    return true;
  }();
  return {};
#endif
}

namespace {

const stbtt_fontinfo& font() {
  static const stbtt_fontinfo info = [] {
    stbtt_fontinfo loaded;
    check(stbtt_InitFont(&loaded, font_bytes().data(), 0) != 0,
          "font: the file built into this program is not a TrueType font");
    return loaded;
  }();
  return info;
}

// The code points of UTF-8 text; a malformed byte becomes U+FFFD.
std::vector<int> code_points(std::string_view text) {
  std::vector<int> points;
  for (std::size_t i = 0; i < text.size();) {
    const unsigned char lead = static_cast<unsigned char>(text[i++]);
    const int more = lead < 0x80 ? 0 : lead < 0xC2 ? -1 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    int point = more < 0 ? 0xFFFD : more == 0 ? lead : lead & (0x3F >> more);
    for (int k = 0; k < more; k++) {
      if (i >= text.size() || (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) {
        point = 0xFFFD;
        break;
      }
      point = point << 6 | (text[i++] & 0x3F);
    }
    points.push_back(point);
  }
  return points;
}

struct Line {
  struct Glyph {
    int index;
    double x;  // of its origin, from the start of the line
  };
  std::vector<Glyph> glyphs;
  double width = 0;
};

double advance(int glyph, double scale) {
  int width = 0, bearing = 0;
  stbtt_GetGlyphHMetrics(&font(), glyph, &width, &bearing);
  return scale * width;
}

Line laid_out(std::string_view text, double scale, double max_width) {
  Line line;
  for (int point : code_points(text)) {
    const int glyph = stbtt_FindGlyphIndex(&font(), point);
    if (!line.glyphs.empty()) {
      line.width += scale * stbtt_GetGlyphKernAdvance(&font(), line.glyphs.back().index, glyph);
    }
    line.glyphs.push_back({glyph, line.width});
    line.width += advance(glyph, scale);
  }
  if (line.width <= max_width) return line;
  const int ellipsis = stbtt_FindGlyphIndex(&font(), 0x2026);
  const double room = max_width - advance(ellipsis, scale);
  while (line.glyphs.size() > 1 && line.glyphs.back().x > room) line.glyphs.pop_back();
  line.glyphs.back().index = ellipsis;
  line.width = line.glyphs.back().x + advance(ellipsis, scale);
  return line;
}

// Draws one glyph at a fraction of a pixel, so that the spaces between letters stay even.
void stamp(const Line::Glyph& glyph, float scale, int baseline, TextImage& image) {
  const int column = static_cast<int>(glyph.x);
  const float shift = static_cast<float>(glyph.x - column);
  int left = 0, top = 0, right = 0, bottom = 0;
  stbtt_GetGlyphBitmapBoxSubpixel(&font(), glyph.index, scale, scale, shift, 0, &left, &top, &right,
                                  &bottom);
  const int width = right - left, height = bottom - top;
  std::vector<unsigned char> grey(static_cast<std::size_t>(width) * height);
  if (grey.empty()) return;
  stbtt_MakeGlyphBitmapSubpixel(&font(), grey.data(), width, height, width, scale, scale, shift, 0,
                                glyph.index);
  for (int y = 0; y < height; y++) {
    for (int x = 0; x < width; x++) {
      const int to_x = column + left + x, to_y = baseline + top + y;
      if (to_x < 0 || to_x >= image.width || to_y < 0 || to_y >= image.height) continue;
      unsigned char& ink = image.grey[static_cast<std::size_t>(to_y) * image.width + to_x];
      ink = static_cast<unsigned char>(std::min(255, ink + grey[y * width + x]));
    }
  }
}

}  // namespace

TextImage set_text(std::string_view text, double size, double max_width) {
  if (font_bytes().empty()) return {};
  const float scale = stbtt_ScaleForMappingEmToPixels(&font(), static_cast<float>(size));
  Line line = laid_out(text, scale, max_width);
  TextImage image;
  const int baseline = static_cast<int>(std::ceil(size));
  const int margin = 2;  // letters may lean a little out of their advance
  image.width = static_cast<int>(std::ceil(line.width)) + 2 * margin;
  image.height = baseline + static_cast<int>(std::ceil(0.35 * size));
  image.middle = baseline - static_cast<int>(std::lround(0.365 * size));  // capitals: 0.73 em
  image.grey.resize(static_cast<std::size_t>(image.width) * image.height);
  for (Line::Glyph glyph : line.glyphs) {
    glyph.x += margin;
    stamp(glyph, scale, baseline, image);
  }
  return image;
}

}  // namespace murmur
