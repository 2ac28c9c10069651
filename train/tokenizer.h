// train/tokenizer.h - text to token ids and back; train/tokenizers.def lists the kinds.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace murmur {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::string name() const = 0;
  virtual int64_t vocab_size() const = 0;
  // Text outside the vocabulary is an InputError that names the character and its byte offset.
  virtual std::vector<uint16_t> encode(std::string_view text) const = 0;
  // The bytes one id stands for; they need not be whole characters.
  virtual std::string token(int64_t id) const = 0;
  // What tokenizer.json holds: {"tokenizer": name, ...}.
  virtual std::string json() const = 0;

  std::string decode(std::span<const int32_t> ids) const;
  int64_t bytes_of(int64_t id) const { return int64_t(token(id).size()); }
};

struct TokenizerInfo {
  std::string name;
  std::string summary;
  bool needs_utf8 = false;  // training text that is not UTF-8 is refused
};
const std::vector<TokenizerInfo>& tokenizers();              // in the order of tokenizers.def
const TokenizerInfo& tokenizer_info(std::string_view name);  // unknown: InputError, nearest name

std::unique_ptr<Tokenizer> make_tokenizer(std::string_view name, std::string_view training_text);
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path);
void save_tokenizer(const Tokenizer& tokenizer, const std::string& path);

// --- UTF-8 ------------------------------------------------------------------------------------

// What stands at the front of some bytes. Overlong forms, surrogates and code points above
// U+10FFFF are not UTF-8.
struct Utf8Character {
  enum Kind { whole, unfinished, invalid };  // unfinished: more bytes could complete it
  Kind kind = invalid;
  size_t length = 1;  // bytes that belong together
  char32_t code_point = 0;
};
Utf8Character first_character(std::string_view bytes);  // bytes must not be empty

// Refuses bytes that are not UTF-8: "WHERE: byte 0xff at offset 7 is not UTF-8; ...".
void check_utf8(std::string_view text, std::string_view where);

// Turns a stream of tokens into text fit for a terminal: holds back the bytes of an unfinished
// character until the rest arrives, and shows U+FFFD for bytes that cannot be one.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);  // what can be shown now
  std::string finish();                      // nothing more will come

 private:
  std::string held_;
};

}  // namespace murmur
