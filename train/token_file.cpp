// train/token_file.cpp - llm.c token shards: written durably, read with every check.
#include "train/token_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <tuple>
#include <vector>

#include "tensor/check.h"  // InputError
#include "train/files.h"   // DurableFile, InputFile

namespace murmur {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are read as they lie on disk");

constexpr int32_t kMagic = 20240520;
constexpr int32_t kVersion = 1;
using Header = std::array<int32_t, 256>;
static_assert(sizeof(Header) == 1024);

// What a file with another first number probably is, and what to do about it.
std::string guess(int32_t magic) {
  switch (magic) {
    case 20240801:
      return "a Llama-3 token shard (32-bit ids), which is not supported";
    case 20240522:
      return "an llm.c evaluation file such as HellaSwag; move it out of the folder";
    case 20240326:
      return "an llm.c model, not tokens";
    case 20240327:
      return "an llm.c debug state, not tokens";
    case 20240527:
      return "an llm.c optimizer state, not tokens";
    case 20240328:
      return "an llm.c tokenizer, not tokens";
  }
  return "a nanoGPT .bin (ids without a header) or not tokens at all; make shards with 'murmur "
         "data "
         "prepare'";
}

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw InputError(path + ": " + why);
}

void check_header(const std::string& path, const Header& header, int64_t file_bytes) {
  const auto [magic, version, count] = std::tuple(header[0], header[1], header[2]);
  if (magic != kMagic) {
    refuse(path, fmt::format("not a token shard (magic {} instead of {}); probably {}", magic,
                             kMagic, guess(magic)));
  }
  if (version != kVersion) {
    refuse(path, fmt::format("shard version {}, known is {}; convert it or fetch it in that form",
                             version, kVersion));
  }
  if (count < 0) refuse(path, fmt::format("the header says {} tokens; fetch it again", count));
  const int64_t expected = int64_t(sizeof(Header)) + 2 * int64_t(count);
  if (file_bytes < expected) {
    refuse(path, fmt::format("truncated: {} bytes, but {} tokens need {}; copy or fetch it again",
                             file_bytes, count, expected));
  }
  if (file_bytes > expected) {
    refuse(path, fmt::format("{} bytes too many: {} bytes, but {} tokens need {}; copy or fetch it "
                             "again",
                             file_bytes - expected, file_bytes, count, expected));
  }
}

void check_ids(const std::string& path, std::span<const uint16_t> tokens, int64_t first,
               int64_t vocab_size) {
  uint16_t largest = 0;  // without a branch: one pass at memory speed
  for (uint16_t id : tokens) largest = std::max(largest, id);
  if (tokens.empty() || largest < vocab_size) return;
  const auto bad =
      std::find_if(tokens.begin(), tokens.end(), [&](uint16_t id) { return id >= vocab_size; });
  refuse(path,
         fmt::format("token {} at position {} is outside the vocabulary of {}; were shard and "
                     "tokenizer.json made together?",
                     *bad, first + (bad - tokens.begin()), vocab_size));
}

}  // namespace

void write_token_file(const std::string& path, std::span<const uint16_t> tokens) {
  if (tokens.size() > size_t(std::numeric_limits<int32_t>::max())) {
    refuse(path, fmt::format("{} tokens do not fit into one shard; write several", tokens.size()));
  }
  Header header{};
  header[0] = kMagic;
  header[1] = kVersion;
  header[2] = int32_t(tokens.size());
  DurableFile file(path);
  file.write(header.data(), sizeof header);
  file.write(tokens.data(), tokens.size_bytes());
  file.commit();
}

TokenFile::TokenFile(const std::string& path, int64_t vocab_size)
    : file_(std::make_shared<InputFile>(path)), vocab_size_(vocab_size) {
  Header header;
  if (file_->bytes() < sizeof header) {
    refuse(path, fmt::format("{} bytes, too short for the header of a token shard ({}); copy or "
                             "fetch it again",
                             file_->bytes(), sizeof header));
  }
  file_->read_at(0, header.data(), sizeof header);
  check_header(path, header, int64_t(file_->bytes()));
  size_ = header[2];
  for_each_piece(0, size_, [](std::span<const uint16_t>) {});  // checks every id
}

const std::string& TokenFile::path() const { return file_->path(); }

void TokenFile::read(int64_t begin, std::span<uint16_t> to) const {
  file_->read_at(sizeof(Header) + 2 * uint64_t(begin), to.data(), to.size_bytes());
  check_ids(path(), to, begin, vocab_size_);
}

void TokenFile::for_each_piece(int64_t begin, int64_t end,
                               const std::function<void(std::span<const uint16_t>)>& visit) const {
  constexpr int64_t kPiece = 1 << 16;
  std::vector<uint16_t> piece;
  for (; begin < end; begin += int64_t(piece.size())) {
    piece.resize(size_t(std::min(kPiece, end - begin)));
    read(begin, piece);
    visit(piece);
  }
}

}  // namespace murmur
