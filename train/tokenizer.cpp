// train/tokenizer.cpp - the byte and char tokenizers, the table of all, and UTF-8 by hand.
#include "train/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>  // greater_equal
#include <nlohmann/json.hpp>

#include "tensor/check.h"  // InputError
#include "tensor/nearest.h"
#include "train/files.h"  // read_file, write_file_durably

namespace murmur {
namespace {

constexpr size_t kMostIds = 65536;  // ids are stored in 16 bits

void check_id(const Tokenizer& tokenizer, int64_t id) {
  check(id >= 0 && id < tokenizer.vocab_size(), [&] {
    return fmt::format("tokenizer {}: id {} is outside the vocabulary of {}", tokenizer.name(), id,
                       tokenizer.vocab_size());
  });
}

// --- byte -------------------------------------------------------------------------------------

class ByteTokenizer : public Tokenizer {
 public:
  static constexpr bool needs_utf8 = false;
  static std::unique_ptr<Tokenizer> train(std::string_view) {
    return std::make_unique<ByteTokenizer>();
  }
  static std::unique_ptr<Tokenizer> load(const nlohmann::json&) {
    return std::make_unique<ByteTokenizer>();
  }

  std::string name() const override { return "byte"; }
  int64_t vocab_size() const override { return 256; }
  std::vector<uint16_t> encode(std::string_view text) const override {
    std::vector<uint16_t> ids(text.size());
    std::transform(text.begin(), text.end(), ids.begin(), [](char c) { return uint8_t(c); });
    return ids;
  }
  std::string token(int64_t id) const override {
    check_id(*this, id);
    return std::string(1, char(id));
  }
  std::string json() const override {
    return nlohmann::ordered_json{{"tokenizer", name()}}.dump(2);
  }
};

// --- char -------------------------------------------------------------------------------------

std::string utf8(char32_t c) {
  auto tail = [&](int shift) { return char(0x80 | ((c >> shift) & 0x3F)); };
  if (c < 0x80) return {char(c)};
  if (c < 0x800) return {char(0xC0 | (c >> 6)), tail(0)};
  if (c < 0x10000) return {char(0xE0 | (c >> 12)), tail(6), tail(0)};
  return {char(0xF0 | (c >> 18)), tail(12), tail(6), tail(0)};
}

// "'é' (U+00E9)"; control characters by number only.
std::string shown(char32_t c) {
  const bool control = c < 0x20 || (c >= 0x7F && c < 0xA0);
  const std::string number = fmt::format("U+{:04X}", uint32_t(c));
  return control ? number : fmt::format("'{}' ({})", utf8(c), number);
}

// Calls visit(code point, byte offset) for every character; refuses what is not UTF-8.
template <class Visit>
void for_each_character(std::string_view text, std::string_view where, Visit visit) {
  for (size_t offset = 0; offset < text.size();) {
    const Utf8Character c = first_character(text.substr(offset));
    if (c.kind != Utf8Character::whole) {
      throw InputError(fmt::format(
          "{}: byte 0x{:02x} at offset {} {}; convert the text to UTF-8 (iconv) or use the byte "
          "tokenizer",
          where, uint8_t(text[offset]), offset,
          c.kind == Utf8Character::unfinished ? "begins a character that the text cuts off"
                                              : "is not UTF-8"));
    }
    visit(c.code_point, offset);
    offset += c.length;
  }
}

class CharTokenizer : public Tokenizer {
 public:
  static constexpr bool needs_utf8 = true;
  explicit CharTokenizer(std::vector<char32_t> symbols) : symbols_(std::move(symbols)) {}
  static std::unique_ptr<Tokenizer> train(std::string_view text);
  static std::unique_ptr<Tokenizer> load(const nlohmann::json& json);

  std::string name() const override { return "char"; }
  int64_t vocab_size() const override { return int64_t(symbols_.size()); }
  std::vector<uint16_t> encode(std::string_view text) const override;
  std::string token(int64_t id) const override {
    check_id(*this, id);
    return utf8(symbols_[size_t(id)]);
  }
  std::string json() const override;

 private:
  std::vector<char32_t> symbols_;  // ascending; the id is the position
};

std::unique_ptr<Tokenizer> CharTokenizer::train(std::string_view text) {
  if (text.empty()) throw InputError("tokenizer char: the training text is empty; give it a text");
  std::vector<bool> seen(0x110000);
  for_each_character(text, "training text", [&](char32_t c, size_t) { seen[c] = true; });
  std::vector<char32_t> symbols;
  for (char32_t c = 0; c < seen.size(); c++) {
    if (seen[c]) symbols.push_back(c);
  }
  if (symbols.size() > kMostIds) {
    throw InputError(fmt::format(
        "tokenizer char: the text has {} different characters, ids end at {}; use the byte "
        "tokenizer",
        symbols.size(), kMostIds - 1));
  }
  return std::make_unique<CharTokenizer>(std::move(symbols));
}

std::vector<uint16_t> CharTokenizer::encode(std::string_view text) const {
  std::vector<uint16_t> ids;
  ids.reserve(text.size());
  for_each_character(text, "text", [&](char32_t c, size_t offset) {
    const auto at = std::lower_bound(symbols_.begin(), symbols_.end(), c);
    if (at == symbols_.end() || *at != c) {
      throw InputError(fmt::format(
          "tokenizer char: {} at byte {} is not among the {} characters of the training text; "
          "leave it out or train on text that has it",
          shown(c), offset, symbols_.size()));
    }
    ids.push_back(uint16_t(at - symbols_.begin()));
  });
  return ids;
}

std::string CharTokenizer::json() const {
  std::string all;
  for (char32_t c : symbols_) all += utf8(c);
  return nlohmann::ordered_json{{"tokenizer", name()}, {"symbols", all}}.dump(2);
}

std::unique_ptr<Tokenizer> CharTokenizer::load(const nlohmann::json& json) {
  const std::string all = json.contains("symbols") && json["symbols"].is_string()
                              ? json["symbols"].get<std::string>()
                              : "";
  std::vector<char32_t> symbols;
  for_each_character(all, "symbols", [&](char32_t c, size_t) { symbols.push_back(c); });
  const bool ascending =
      std::adjacent_find(symbols.begin(), symbols.end(), std::greater_equal<>()) == symbols.end();
  if (symbols.empty() || symbols.size() > kMostIds || !ascending) {
    throw InputError(
        "'symbols' must be a text of 1 to 65536 distinct characters in ascending order; prepare "
        "the data again");
  }
  return std::make_unique<CharTokenizer>(std::move(symbols));
}

// --- the table --------------------------------------------------------------------------------

struct Row {
  TokenizerInfo info;
  std::unique_ptr<Tokenizer> (*train)(std::string_view text);
  std::unique_ptr<Tokenizer> (*load)(const nlohmann::json& json);
};

// {{"byte", "256 ids, ...", ByteTokenizer::needs_utf8}, ByteTokenizer::train, ByteTokenizer::load},
#define TOKENIZER(name, Type, summary) \
  {{#name, summary, Type::needs_utf8}, Type::train, Type::load},
const std::vector<Row>& table() {
  static const std::vector<Row> rows = {
#include "train/tokenizers.def"
  };
  return rows;
}
#undef TOKENIZER

const Row& row_of(std::string_view name) {
  std::vector<std::string> names;
  for (const Row& row : table()) {
    if (row.info.name == name) return row;
    names.push_back(row.info.name);
  }
  throw InputError(fmt::format("tokenizer '{}' is unknown; did you mean '{}'? Known: {}", name,
                               nearest(name, names), fmt::join(names, ", ")));
}

}  // namespace

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (int32_t id : ids) text += token(id);
  return text;
}

const std::vector<TokenizerInfo>& tokenizers() {
  static const std::vector<TokenizerInfo> all = [] {
    std::vector<TokenizerInfo> infos;
    for (const Row& row : table()) infos.push_back(row.info);
    return infos;
  }();
  return all;
}

const TokenizerInfo& tokenizer_info(std::string_view name) { return row_of(name).info; }

std::unique_ptr<Tokenizer> make_tokenizer(std::string_view name, std::string_view training_text) {
  return row_of(name).train(training_text);
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) {
  const nlohmann::json json = nlohmann::json::parse(read_file(path), nullptr, false);
  if (!json.is_object() || !json.contains("tokenizer") || !json["tokenizer"].is_string()) {
    throw InputError(path +
                     ": not a tokenizer file (JSON with the key 'tokenizer'); prepare the "
                     "data again");
  }
  try {
    return row_of(json["tokenizer"].get<std::string>()).load(json);
  } catch (const InputError& error) {
    throw InputError(path + ": " + error.what());
  }
}

void save_tokenizer(const Tokenizer& tokenizer, const std::string& path) {
  write_file_durably(path, tokenizer.json() + "\n");
}

// --- UTF-8 ------------------------------------------------------------------------------------

// The table "Well-Formed UTF-8 Byte Sequences" of the Unicode standard: the lead byte decides the
// length and, for four of them, a narrower range of the second byte.
Utf8Character first_character(std::string_view bytes) {
  const unsigned lead = uint8_t(bytes[0]);
  if (lead < 0x80) return {Utf8Character::whole, 1, lead};
  const size_t length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (length == 0) return {Utf8Character::invalid, 1, 0};
  unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  char32_t code_point = lead & (0x7Fu >> length);
  for (size_t i = 1; i < length; i++) {
    if (i == bytes.size()) return {Utf8Character::unfinished, i, 0};
    const unsigned next = uint8_t(bytes[i]);
    if (next < low || next > high) return {Utf8Character::invalid, i, 0};
    code_point = (code_point << 6) | (next & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Character::whole, length, code_point};
}

void check_utf8(std::string_view text, std::string_view where) {
  for_each_character(text, where, [](char32_t, size_t) {});
}

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  std::string out;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Utf8Character c = first_character(rest);
    if (c.kind == Utf8Character::unfinished) break;
    out += c.kind == Utf8Character::whole ? rest.substr(0, c.length) : "\uFFFD";
    rest.remove_prefix(c.length);
  }
  held_ = std::string(rest);
  return out;
}

std::string Utf8Stream::finish() {
  const bool unfinished = !held_.empty();
  held_.clear();
  return unfinished ? "\uFFFD" : "";
}

}  // namespace murmur
