// tensor/cpu/gemm_kernel.cpp - the inside of gemm.h, compiled once for every instruction set under
// the name MURMUR_GEMM.
//
// Both sides are read as words of 32 bits: one fp32, or a pair of bf16 that follow each other along
// the inner dimension, as vdpbf16ps and AMX take them. Then one scheme serves all types:
//
//   for strips of kRows rows of the left side             12 with AVX-512, 6 with AVX2, 32 with AMX
//     for panels of kColumns columns of the right side    two vectors
//       tile():   kRows x kColumns sums stay in registers while the inner dimension runs by
//     finish():   whole rows of sums, in the first-level cache
//
// The right side is packed into panels [word][kColumns], which stay in the second-level cache.
// Where its columns are columns in memory, the first strip reads them there and leaves the panel
// behind for those that follow: packing is two stores a step. Where they are rows, squares of words
// are transposed. The left side is read where it lies, if its words are there.
//
// No header with functions in it may be included: the linker keeps one copy of an inline function,
// perhaps the one with instructions that this processor does not have.
#include <immintrin.h>

#include "tensor/cpu/gemm.h"

namespace murmur {
namespace {

#ifdef __AVX512F__
constexpr int L = 16, kVectorRows = 12;
#else
constexpr int L = 8, kVectorRows = 6;
#endif
#ifdef __AMX_BF16__
constexpr bool kHasAmx = true;
#else
constexpr bool kHasAmx = false;
#endif
constexpr int kColumns = 2 * L;
// Of the inner dimension, in words: one that is longer than kWhole goes by in pieces.
constexpr int64_t kWhole = 768, kPiece = 384;
// How many words ahead a tile asks memory for the right side.
constexpr int64_t kAhead = 32;
// Columns in memory whose words lie further apart, in bytes, compete for few lines of the cache.
constexpr int64_t kFar = 8192;

// What a word is: an fp32; an fp32 rounded to bf16; a pair of bf16.
enum class Word { fp32, rounded, pair };
#ifdef __AVX512BF16__
constexpr Word kBf16Word = Word::pair;
#else
constexpr Word kBf16Word = Word::rounded;
#endif
template <Word kWord>
constexpr int64_t kPerWord = kWord == Word::pair ? 2 : 1;
template <Word kWord>
constexpr bool kAmx = kHasAmx&& kWord == Word::pair;
template <Word kWord>
constexpr int64_t kRows = kAmx<kWord> ? 32 : kVectorRows;
template <Word kWord>
constexpr int64_t kDepth = kAmx<kWord> ? 16 : 1;  // words that a step takes

typedef float F __attribute__((vector_size(4 * L)));
typedef uint32_t U __attribute__((vector_size(4 * L)));
typedef uint16_t H __attribute__((vector_size(2 * L)));

template <class V>
inline V load(const void* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
template <class V>
inline void store(void* to, V v) {
  __builtin_memcpy(to, &v, sizeof v);
}
inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t clamp(int64_t n, int64_t most) { return n < 0 ? 0 : smaller(n, most); }

// words -----------------------------------------------------------------------------------------

inline U widen(H x) { return __builtin_convertvector(x, U) << 16; }

// To the nearest bf16, ties to even, as an fp32. NaN stays NaN.
[[maybe_unused]] inline U round_to_bf16(U x) {
  U rounded = (x + 0x7fff + (x >> 16 & 1)) & 0xffff0000;
  return (x & 0x7fffffff) > 0x7f800000 ? (x | 0x400000) & 0xffff0000 : rounded;
}

// L words that follow each other along the inner dimension of one line.
template <Word kWord, bool kBf16>
inline U words_of_line(const char* from) {
  if constexpr (kWord == Word::pair && !kBf16) {
#ifdef __AVX512BF16__
    return (U)_mm512_cvtne2ps_pbh(load<__m512>(from + 64), load<__m512>(from));
#endif
  } else if constexpr (kWord == Word::rounded && !kBf16) {
    return round_to_bf16(load<U>(from));
  } else if constexpr (kWord != Word::pair && kBf16) {
    return widen(load<H>(from));
  } else {
    return load<U>(from);
  }
}

#ifdef __AVX512BF16__
// The first half of one vector in even places, that of another in odd ones.
struct Interleaved {
  alignas(64) uint16_t from[32] = {};
  constexpr Interleaved() {
    for (int i = 0; i < 32; i++) from[i] = uint16_t(i / 2 + i % 2 * 32);
  }
};
constexpr Interleaved kInterleaved;
inline U interleave(H even, H odd) {
  return (U)_mm512_permutex2var_epi16(_mm512_castsi256_si512((__m256i)even),
                                      load<__m512i>(kInterleaved.from),
                                      _mm512_castsi256_si512((__m256i)odd));
}
#endif

// One word of each of L neighbouring lines; the other half of a pair is `next` bytes away.
template <Word kWord, bool kBf16>
inline U word_of_lines(const char* from, [[maybe_unused]] int64_t next) {
  if constexpr (kWord != Word::pair) {
    return words_of_line<kWord, kBf16>(from);
  } else {
#ifdef __AVX512BF16__
    if constexpr (kBf16)
      return interleave(load<H>(from), load<H>(from + next));
    else
      return interleave((H)_mm512_cvtneps_pbh(load<__m512>(from)),
                        (H)_mm512_cvtneps_pbh(load<__m512>(from + next)));
#endif
  }
}

// packing ---------------------------------------------------------------------------------------

template <int... i>
struct Lanes {};
#ifdef __AVX512F__
using AllLanes = Lanes<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>;
#else
using AllLanes = Lanes<0, 1, 2, 3, 4, 5, 6, 7>;
#endif

// Exchanges blocks of kHalf words between two vectors: the upper ones of a for the lower ones of b.
template <int kHalf, int... i>
inline void exchange(U& a, U& b, Lanes<i...>) {
  U low = __builtin_shufflevector(a, b, (i & kHalf ? L + i - kHalf : i)...);
  b = __builtin_shufflevector(a, b, (i & kHalf ? L + i : i + kHalf)...);
  a = low;
}

// A square of L x L words, by exchanging ever larger blocks between pairs of rows.
template <int kHalf = 1>
inline void transpose(U (&row)[L]) {
#pragma GCC unroll 16
  for (int i = 0; i < L; i++) {
    if (!(i & kHalf)) exchange<kHalf>(row[i], row[i + kHalf], AllLanes());
  }
  if constexpr (2 * kHalf < L) transpose<2 * kHalf>(row);
}

// How words lie once they are packed: word w of line l at to[l * apart + w] or to[w * apart + l].
struct Packed {
  float* to;
  int64_t apart;
  bool by_lines;
};

// A square of L lines x L words from `from` on, of which `lines` and `depth` elements are there and
// the rest is zeros. `count` vectors are wanted.
template <Word kWord, bool kBf16, bool kLinesAreRows>
inline void pack_square(const char* from, int64_t next, int64_t lines, int64_t depth, int64_t count,
                        const Packed& packed, float* to) {
  constexpr int64_t S = kPerWord<kWord>, E = kBf16 ? 2 : 4;
  constexpr int64_t kSquareRows = kLinesAreRows ? L : L * S,
                    kRowBytes = L * L * S * E / kSquareRows;
  alignas(64) char margin[kSquareRows * kRowBytes];
  if (lines < L || depth < L * S) {
    lines = clamp(lines, L), depth = clamp(depth, L * S);
    __builtin_memset(margin, 0, sizeof margin);
    for (int64_t i = 0; i < (kLinesAreRows ? lines : depth); i++)
      __builtin_memcpy(margin + i * kRowBytes, from + i * next,
                       (kLinesAreRows ? depth : lines) * E);
    from = margin, next = kRowBytes;
  }
  auto vector = [&](int64_t i) {
    if constexpr (kLinesAreRows) return words_of_line<kWord, kBf16>(from + i * next);
    return word_of_lines<kWord, kBf16>(from + i * S * next, next);
  };
  if (packed.by_lines == kLinesAreRows) {
    for (int64_t i = 0; i < count; i++) store(to + i * packed.apart, vector(i));
    return;
  }
  U row[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; i++) row[i] = vector(i);
  transpose(row);
  if (count == L) {
#pragma GCC unroll 16
    for (int i = 0; i < L; i++) store(to + i * packed.apart, row[i]);
  } else {
    for (int64_t i = 0; i < count; i++) store(to + i * packed.apart, row[i]);
  }
}

// Packs `lines` lines of x from `line` on, and `words` words of each from element `begin` on, of
// which x has `last_line` lines and `depth` elements. By words, what a vector writes beyond the
// last line is overwritten by the next word: there must be room for one vector more.
template <Word kWord, bool kBf16, bool kLinesAreRows>
void pack(const GemmSide& x, int64_t line, int64_t lines, int64_t last_line, int64_t begin,
          int64_t depth, int64_t words, const Packed& packed) {
  constexpr int64_t S = kPerWord<kWord>, E = kBf16 ? 2 : 4;
  const int64_t next = x.stride * E;
  auto square = [&](int64_t l, int64_t w) {
    int64_t at = begin + w * S, i = line + l;
    pack_square<kWord, kBf16, kLinesAreRows>(
        (const char*)x.data + (kLinesAreRows ? i * next + at * E : at * next + i * E), next,
        last_line - i, depth - w * S, smaller(L, packed.by_lines ? lines - l : words - w), packed,
        packed.to + (packed.by_lines ? l * packed.apart + w : w * packed.apart + l));
  };
  if constexpr (kLinesAreRows) {
    for (int64_t l = 0; l < lines; l += L)
      for (int64_t w = 0; w < words; w += L) square(l, w);
  } else {
    for (int64_t w = 0; w < words; w += L)
      for (int64_t l = 0; l < lines; l += L) square(l, w);
  }
}

template <Word kWord, class... Arguments>
inline void pack(const GemmSide& x, Arguments... arguments) {
  if (x.is_bf16)
    (x.lines_are_rows ? pack<kWord, true, true> : pack<kWord, true, false>)(x, arguments...);
  else
    (x.lines_are_rows ? pack<kWord, false, true> : pack<kWord, false, false>)(x, arguments...);
}

// the register tile -----------------------------------------------------------------------------

// Where the next word of kColumns columns comes from: a panel, or memory, to be left in a panel.
struct FromPanel {
  const float* at;
  void next(F (&word)[2]) {
    word[0] = load<F>(at);
    word[1] = load<F>(at + L);
    at += kColumns;
  }
};
template <Word kWord, bool kBf16>
struct FromMemory {
  const char* at;
  int64_t stride;  // bytes
  float* panel;
  void next(F (&word)[2]) {
    constexpr int64_t E = kBf16 ? 2 : 4;
    for (int j = 0; j < 2; j++) {
      U x = word_of_lines<kWord, kBf16>(at + j * L * E, stride);
      store(panel + j * L, x);
      word[j] = (F)x;
    }
    __builtin_prefetch(at + kAhead * kPerWord<kWord> * stride);
    __builtin_prefetch(at + kAhead * kPerWord<kWord> * stride + 64);
    panel += kColumns;
    at += kPerWord<kWord> * stride;
  }
};

// Words of the left side: word w of row i is `row` i + `word` w bytes on.
struct Left {
  const char* data;
  int64_t row, word;
  int64_t ahead;  // bytes to what the next strip reads first
};

template <Word kWord>
inline F multiply_add(F sum, F a, F b) {
#ifdef __AVX512BF16__
#ifdef __clang__
  asm("" : "+v"(a));  // clang 16 ends with a fault where it sees that all pairs of a are one
#endif
  if constexpr (kWord == Word::pair)
    return (F)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#endif
  return sum + a * b;
}

// sums (+)= kCount rows times a panel.
template <Word kWord, int kCount, class Right>
void tile(int64_t words, const Left& left, Right right, bool add, float* sums, int64_t stride) {
  constexpr int kBases = (kCount + 3) / 4;  // registers enough to address all rows
  F sum[kCount][2];
#pragma GCC unroll 16
  for (int i = 0; i < kCount; i++) sum[i][0] = sum[i][1] = F{};
  const char* base[kBases];
#pragma GCC unroll 4
  for (int q = 0; q < kBases; q++) base[q] = left.data + 4 * q * left.row;
  const int64_t row[4] = {0, left.row, 2 * left.row, 3 * left.row};
#pragma GCC unroll 1
  for (int64_t w = 0; w < words; w++) {
    F b[2];
    right.next(b);
    __builtin_prefetch(base[0] + left.ahead);
#pragma GCC unroll 16
    for (int i = 0; i < kCount; i++) {
      F a = (F)(load<uint32_t>(base[i / 4] + row[i % 4]) + U{});
      sum[i][0] = multiply_add<kWord>(sum[i][0], a, b[0]);
      sum[i][1] = multiply_add<kWord>(sum[i][1], a, b[1]);
    }
#pragma GCC unroll 4
    for (int q = 0; q < kBases; q++) base[q] += left.word;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kCount; i++, sums += stride) {
    store(sums, add ? load<F>(sums) + sum[i][0] : sum[i][0]);
    store(sums + L, add ? load<F>(sums + L) + sum[i][1] : sum[i][1]);
  }
}

#ifdef __AMX_BF16__
// Tile registers hold 16 rows of 64 bytes. One instruction adds the product of a left one (16 rows
// x 16 words) and a right one (16 words x 16 columns) to 16 x 16 sums. Four of sums take two left
// and two right ones a step: each is used twice.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

void amx_tile(int64_t words, const Left& left, const float* panel, bool add, float* sums,
              int64_t stride) {
  const int64_t row = stride * 4, panel_row = kColumns * 4;
  float* below = sums + 16 * stride;
  if (add) {
    _tile_loadd(0, sums, row);
    _tile_loadd(1, sums + 16, row);
    _tile_loadd(2, below, row);
    _tile_loadd(3, below + 16, row);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const char* at = left.data;
  asm volatile("" ::: "memory");  // the intrinsics do not say that they read the panels
  for (int64_t w = 0; w < words; w += 16, at += 64, panel += 16 * kColumns) {
    _tile_loadd(4, at, left.row);
    _tile_loadd(6, panel, panel_row);
    _tile_loadd(7, panel + 16, panel_row);
    _tile_loadd(5, at + 16 * left.row, left.row);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, row);
  _tile_stored(1, sums + 16, row);
  _tile_stored(2, below, row);
  _tile_stored(3, below + 16, row);
}
#endif

// the block -------------------------------------------------------------------------------------

template <Word kWord>
class Multiplication {
 public:
  explicit Multiplication(const GemmBlock& block) : p(block) {}

  int64_t scratch_size() const { return right_size + left_size + spare_size + sums_size; }

  void run(float* scratch) {
    right = scratch;
    left_group = right + right_size;
    spare = left_group + left_size;
    sums = spare + spare_size;
#ifdef __AMX_BF16__
    const TileShapes shapes;
    if constexpr (kAmx<kWord>) _tile_loadconfig(&shapes);
#endif
    for (int64_t first = 0; first < all_words; first += words) {
      words = smaller(piece, all_words - first);
      begin = first * S;
      depth = smaller(p.k - begin, words * S);
      add = first > 0 || (p.sums && p.accumulate);
      packed = 0;
      for (int64_t i = 0, rows; i < p.m; i += rows) {
        rows = smaller(p.m - i, R);
        if (!kAmx<kWord> && rows < R) rows = rows >= R / 3 ? R / 3 : 1;
        multiply_strip(i, rows);
        if (first + words == all_words && p.finish)
          p.finish(p.context, i, rows, strip(i), strip_stride);
      }
    }
#ifdef __AMX_BF16__
    if constexpr (kAmx<kWord>) _tile_release();
#endif
  }

 private:
  static constexpr int64_t S = kPerWord<kWord>, R = kRows<kWord>;
  // Rows of the left side that are packed at once: of columns in memory, whole lines of the cache.
  static constexpr int64_t kGroup = kAmx<kWord> ? R : 4 * R;

  const GemmBlock& p;
  const int64_t all_words = round_up((p.k + S - 1) / S, kDepth<kWord>),
                piece = all_words <= kWhole ? all_words : kPiece, width = round_up(p.n, kColumns);
  const int64_t strip_stride = p.sums ? p.stride : width;
  // Scratch memory, in floats.
  const int64_t right_size = width * piece, left_size = kGroup * round_up(piece, L),
                spare_size = R * kColumns,
                sums_size = p.sums ? 0 : width * (piece < all_words ? round_up(p.m, R) : R);
  float *right, *left_group, *spare, *sums;
  // The piece of the inner dimension that is under way: elements [begin, begin + depth).
  int64_t words, begin, depth;
  bool add;
  int64_t packed;  // columns of the right side

  float* strip(int64_t i) const {
    return p.sums ? p.sums + i * p.stride : sums + (piece < all_words ? i * width : 0);
  }

  Left left_of(int64_t i, int64_t rows) const {
    const bool by_rows = p.left.lines_are_rows;
    const int64_t element = p.left.is_bf16 ? 2 : 4, next = p.left.stride * element;
    const char* data = static_cast<const char*>(p.left.data) + begin * (by_rows ? element : next) +
                       i * (by_rows ? next : element);
    if (kWord != Word::rounded && element * S == 4 && depth == words * S &&
        (!kAmx<kWord> || rows == R)) {  // words lie there
      if (by_rows) return {data, next, 4, 0};
      if (S == 1 && next <= kFar) return {data, 4, next, 8 * R - 4};
    }
    constexpr bool kByLines = kAmx<kWord>;
    const bool by_lines = kByLines || by_rows;
    const int64_t apart = by_lines ? round_up(words, L) : kGroup, of_group = i % kGroup;
    if (of_group == 0)
      pack<kWord>(p.left, i, kAmx<kWord> ? R : smaller(kGroup, p.m - i), p.m, begin, depth, words,
                  Packed{left_group, apart, by_lines});
    data = reinterpret_cast<const char*>(left_group + of_group * (by_lines ? apart : 1));
    return by_lines ? Left{data, 4 * apart, 4, 0} : Left{data, 4, 4 * apart, 0};
  }

  void multiply_strip(int64_t i, int64_t rows) {
    Left left = left_of(i, rows);
    // Of the inner dimension, the words that may differ from zero.
    int64_t from = 0, to = words;
    if (p.left_is_upper)
      from = clamp((i - p.diagonal - begin) / (S * kDepth<kWord>)*kDepth<kWord>, words);
    if (p.left_is_lower)
      to = clamp(round_up(i + rows + p.diagonal - begin, S * kDepth<kWord>) / S, words);
    left.data += from * left.word;
    const int64_t columns = p.lower ? smaller(p.n, i + rows + p.diagonal) : p.n;
    for (int64_t j = 0; j < columns; j += kColumns) {
      float *panel = right + j * words, *at = strip(i) + j;
      if (left.word == 4) left.ahead = (R + j / kColumns % R) * left.row;  // one row a panel
      const bool is_new = j >= packed, whole = j + kColumns <= p.n && (!kAmx<kWord> || rows == R);
      const bool by_tile = is_new && !p.right.lines_are_rows && whole && rows == R &&
                           depth == words * S && to - from == words && !kAmx<kWord>;
      if (is_new) packed = j + kColumns;
      if (is_new && !by_tile)
        pack<kWord>(p.right, j, int64_t(kColumns), p.n, begin, depth, words,
                    Packed{panel, kColumns, false});
      panel += from * kColumns;
      if (whole || !p.sums) {
        multiply_tile(to - from, rows, left, by_tile, j, panel, add, at, strip_stride);
        continue;
      }
      multiply_tile(to - from, rows, left, by_tile, j, panel, false, spare, kColumns);
      for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < smaller(kColumns, p.n - j); c++) {
          float& sum = at[r * strip_stride + c];
          sum = spare[r * kColumns + c] + (add ? sum : 0);
        }
      }
    }
  }

  // sums (+)= rows times the panel of columns from j on, which the tile packs where `by_tile`.
  void multiply_tile(int64_t count, int64_t rows, const Left& left, bool by_tile, int64_t j,
                     float* panel, bool add_to, float* to, int64_t stride) const {
#ifdef __AMX_BF16__
    if constexpr (kAmx<kWord>) return amx_tile(count, left, panel, add_to, to, stride);
#endif
    if constexpr (!kAmx<kWord>) {
      const int64_t element = p.right.is_bf16 ? 2 : 4, next = p.right.stride * element;
      const char* at = static_cast<const char*>(p.right.data) + begin * next + j * element;
      FromPanel ready{panel};
      if (by_tile && p.right.is_bf16)
        tile<kWord, R>(count, left, FromMemory<kWord, true>{at, next, panel}, add_to, to, stride);
      else if (by_tile)
        tile<kWord, R>(count, left, FromMemory<kWord, false>{at, next, panel}, add_to, to, stride);
      else if (rows == R)
        tile<kWord, R>(count, left, ready, add_to, to, stride);
      else if (rows == R / 3)
        tile<kWord, R / 3>(count, left, ready, add_to, to, stride);
      else
        tile<kWord, 1>(count, left, ready, add_to, to, stride);
    }
  }
};

template <Word kWord>
void multiply(const GemmBlock& block, float* scratch) {
  Multiplication<kWord>(block).run(scratch);
}

template <Word kWord>
int64_t scratch_size(const GemmBlock& block) {
  return Multiplication<kWord>(block).scratch_size();
}

template <Word kWord>
constexpr GemmProduct kProduct = {kRows<kWord>, multiply<kWord>, scratch_size<kWord>};

}  // namespace

#define MURMUR_KERNEL(isa) MURMUR_KERNEL_NAMED(isa)
#define MURMUR_KERNEL_NAMED(isa)      \
  extern const GemmKernel gemm_##isa; \
  const GemmKernel gemm_##isa = {#isa, kProduct<Word::fp32>, kProduct<kBf16Word>};
MURMUR_KERNEL(MURMUR_GEMM)

}  // namespace murmur
