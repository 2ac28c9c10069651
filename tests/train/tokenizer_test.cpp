// tests/train/tokenizer_test.cpp - text survives the way through ids; what cannot is named.
#include "train/tokenizer.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tensor/nearest.h"
#include "tests/train/temporary_folder.h"

using namespace murmur;

namespace {

std::string through_ids(const Tokenizer& tokenizer, const std::string& text) {
  const std::vector<uint16_t> ids = tokenizer.encode(text);
  return tokenizer.decode(std::vector<int32_t>(ids.begin(), ids.end()));
}

std::string all_bytes() {
  std::string bytes;
  for (int i = 0; i < 256; i++) bytes += char(i);
  return bytes;
}

// One to four bytes a character, and the first and last code point of every length.
const std::string kMixed =
    "\x01 az\x7f \u0080\u00e9\u07ff \u0800\u20ac\ud7ff\ue000\uffff "
    "\U00010000\U0001f600\U0010ffff\n";

std::string refusal(std::string_view text) {
  return input_error_of([&] { check_utf8(text, "input.txt"); });
}

}  // namespace

TEST_CASE("every listed tokenizer: text -> ids -> text, and again after saving") {
  TemporaryFolder folder;
  REQUIRE(tokenizers().size() >= 2);
  for (const TokenizerInfo& info : tokenizers()) {
    CAPTURE(info.name);
    CHECK(!info.summary.empty());
    const std::string text = info.needs_utf8 ? kMixed : kMixed + all_bytes();
    const auto tokenizer = make_tokenizer(info.name, text);
    CHECK(tokenizer->name() == info.name);
    CHECK(through_ids(*tokenizer, text) == text);
    CHECK(tokenizer->encode("").empty());

    int64_t bytes = 0;
    for (uint16_t id : tokenizer->encode(text)) {
      REQUIRE(id < tokenizer->vocab_size());
      bytes += tokenizer->bytes_of(id);
    }
    CHECK(bytes == int64_t(text.size()));

    const std::string path = folder / (info.name + ".json");
    save_tokenizer(*tokenizer, path);
    const auto loaded = load_tokenizer(path);
    CHECK(loaded->name() == info.name);
    CHECK(loaded->vocab_size() == tokenizer->vocab_size());
    CHECK(loaded->encode(text) == tokenizer->encode(text));
    CHECK(through_ids(*loaded, text) == text);
  }
}

TEST_CASE("byte: the id is the byte") {
  const auto tokenizer = make_tokenizer("byte", "");
  CHECK(tokenizer->vocab_size() == 256);
  CHECK(tokenizer->encode(std::string("\x00\x7f\x80\xff", 4)) ==
        std::vector<uint16_t>{0, 127, 128, 255});
}

TEST_CASE("char: ids are the distinct characters in ascending order") {
  const auto tokenizer = make_tokenizer("char", "cab\u20acac\u00e9\n");
  CHECK(tokenizer->vocab_size() == 6);  // \n a b c é €
  CHECK(tokenizer->encode("\nabc\u00e9\u20ac") == std::vector<uint16_t>{0, 1, 2, 3, 4, 5});
  CHECK(tokenizer->bytes_of(1) == 1);
  CHECK(tokenizer->bytes_of(4) == 2);
  CHECK(tokenizer->bytes_of(5) == 3);
  CHECK(tokenizer->token(5) == "\u20ac");
}

TEST_CASE("char: a character outside the training text is named with its byte offset") {
  const auto tokenizer = make_tokenizer("char", "abc\u00e9");
  auto error = [&](const std::string& text) {
    return input_error_of([&] { tokenizer->encode(text); });
  };
  CHECK(says(error("\u00e9ab\u20acc"), "char", "'\u20ac' (U+20AC) at byte 4"));
  CHECK(says(error("\x1b[2J"), "char", "U+001B at byte 0"));
  CHECK_FALSE(contains(error("\x1b[2J"), "\x1b"));  // nothing that acts on a terminal
  CHECK(says(error("ab\u0085"), "char", "U+0085 at byte 2"));
  CHECK(says(error("ab\xff"), "text", "byte 0xff at offset 2"));
}

TEST_CASE("char: an empty or oversized training text is refused") {
  CHECK(says(input_error_of([] { make_tokenizer("char", ""); }), "char", "empty"));
  std::string many;  // 65537 characters of four bytes
  auto append = [&](uint32_t c) {
    for (uint32_t byte : {0xf0 | (c >> 18), 0x80 | ((c >> 12) & 0x3f), 0x80 | ((c >> 6) & 0x3f),
                          0x80 | (c & 0x3f)}) {
      many += char(byte);
    }
  };
  for (uint32_t c = 0x10000; c < 0x20000; c++) append(c);
  const auto largest = make_tokenizer("char", many);
  CHECK(largest->vocab_size() == 65536);
  CHECK(largest->encode(many).back() == 65535);
  append(0x20000);
  CHECK(says(input_error_of([&] { make_tokenizer("char", many); }), "char", "65537"));
}

TEST_CASE("UTF-8: what is not is named with its offset") {
  CHECK(refusal(kMixed) == "");
  CHECK(refusal("") == "");
  CHECK(says(refusal("ab\xff"), "input.txt", "byte 0xff at offset 2 is not UTF-8"));
  CHECK(says(refusal("\u00e9\x80"), "input.txt", "byte 0x80 at offset 2"));        // no lead
  CHECK(says(refusal("\xc0\xaf"), "input.txt", "byte 0xc0 at offset 0"));          // overlong '/'
  CHECK(says(refusal("\xc1\xbf"), "input.txt", "byte 0xc1 at offset 0"));          // overlong
  CHECK(says(refusal("\xe0\x9f\xbf"), "input.txt", "byte 0xe0 at offset 0"));      // overlong
  CHECK(says(refusal("\xf0\x8f\xbf\xbf"), "input.txt", "byte 0xf0 at offset 0"));  // overlong
  CHECK(says(refusal("\xed\xa0\x80"), "input.txt", "byte 0xed at offset 0"));      // surrogate
  CHECK(says(refusal("\xf4\x90\x80\x80"), "input.txt", "byte 0xf4 at offset 0"));  // > 10FFFF
  CHECK(says(refusal("\xf5\x80\x80\x80"), "input.txt", "byte 0xf5 at offset 0"));
  CHECK(says(refusal("a\xe2\x82"), "input.txt", "byte 0xe2 at offset 1 begins a character that"));
  CHECK(says(refusal("\xe2\x82x"), "input.txt", "byte 0xe2 at offset 0 is not UTF-8"));
}

TEST_CASE("UTF-8 stream: byte by byte, only whole characters come out") {
  Utf8Stream stream;
  std::string shown;
  for (char byte : kMixed) {
    shown += stream.push(std::string(1, byte));
    CHECK(refusal(shown) == "");
  }
  CHECK(shown == kMixed);
  CHECK(stream.finish() == "");
}

TEST_CASE("UTF-8 stream: unfinished bytes wait, bytes that cannot be completed become U+FFFD") {
  Utf8Stream stream;
  CHECK(stream.push("a\xe2") == "a");
  CHECK(stream.push("\x82") == "");
  CHECK(stream.push("\xac"
                    "b") ==
        "\u20ac"
        "b");
  CHECK(stream.push("\xff"
                    "c") ==
        "\ufffd"
        "c");
  CHECK(stream.push("\xe2\x82") == "");
  CHECK(stream.push("d") ==
        "\ufffd"
        "d");
  CHECK(stream.push("\xf0\x9f") == "");
  CHECK(stream.finish() == "\ufffd");
  CHECK(stream.finish() == "");
  CHECK(stream.push("e") == "e");
}

TEST_CASE("UTF-8 stream: whatever the bytes, the text is UTF-8, however they are cut") {
  uint32_t random = 1;
  std::string bytes;
  for (int i = 0; i < 5000; i++) {
    random = random * 1664525 + 1013904223;
    bytes += char(random >> 24);
  }
  Utf8Stream whole;
  const std::string expected = whole.push(bytes) + whole.finish();
  CHECK(refusal(expected) == "");
  for (size_t piece : {1, 2, 3, 7}) {
    CAPTURE(piece);
    Utf8Stream stream;
    std::string shown;
    for (size_t i = 0; i < bytes.size(); i += piece) shown += stream.push(bytes.substr(i, piece));
    CHECK(shown + stream.finish() == expected);
  }
}

TEST_CASE("an unknown tokenizer names the nearest known one") {
  for (const char* typed : {"chra", "Char", "characters"}) {
    CAPTURE(typed);
    const std::string error = input_error_of([&] { make_tokenizer(typed, "abc"); });
    CHECK(says(error, typed, "did you mean 'char'"));
  }
  CHECK(says(input_error_of([] { tokenizer_info("bytes"); }), "bytes", "did you mean 'byte'"));
}

TEST_CASE("tokenizer files that are not: one line, with the path") {
  TemporaryFolder folder;
  const std::string path = folder / "tokenizer.json";
  auto error = [&](const std::string& content) {
    put_bytes(path, content);
    return input_error_of([&] { load_tokenizer(path); });
  };
  CHECK(says(input_error_of([&] { load_tokenizer(folder / "none.json"); }), folder / "none.json",
             "No such file"));
  for (const char* content : {"", "{", "[]", "{}", "{\"tokenizer\": 3}", "7"}) {
    CAPTURE(content);
    CHECK(says(error(content), path, "not a tokenizer file"));
  }
  CHECK(says(error(R"({"tokenizer": "cahr"})"), path, "did you mean 'char'"));
  for (const char* content :
       {R"({"tokenizer": "char"})", R"({"tokenizer": "char", "symbols": 5})",
        R"({"tokenizer": "char", "symbols": ""})", R"({"tokenizer": "char", "symbols": "ba"})",
        R"({"tokenizer": "char", "symbols": "aa"})"}) {
    CAPTURE(content);
    CHECK(says(error(content), path, "'symbols'"));
  }
  CHECK(error(R"({"tokenizer": "char", "symbols": "ab"})") == "");
}

TEST_CASE("an id outside the vocabulary is an error") {
  for (const TokenizerInfo& info : tokenizers()) {
    CAPTURE(info.name);
    const auto tokenizer = make_tokenizer(info.name, "abc");
    CHECK_THROWS_AS(tokenizer->token(tokenizer->vocab_size()), Error);
    CHECK_THROWS_AS(tokenizer->token(-1), Error);
  }
}

TEST_CASE("edit distance counts insertions, deletions, replacements and swaps") {
  CHECK(edit_distance("", "") == 0);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("muon", "muon") == 0);
  CHECK(edit_distance("muon", "moun") == 1);  // a swap
  CHECK(edit_distance("adamw", "adam") == 1);
  CHECK(edit_distance("adam", "adamw") == 1);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("ca", "abc") == 3);  // no letter is touched again after a swap
}

TEST_CASE("nearest: the smallest distance, the first of several, nothing among none") {
  const std::vector<std::string> known = {"adamw", "muon", "normuon", "lion"};
  CHECK(nearest("moun", known) == "muon");
  CHECK(nearest("adam", known) == "adamw");
  CHECK(nearest("normuno", known) == "normuon");
  CHECK(nearest("muon", known) == "muon");
  const std::vector<std::string> equal = {"ab", "ac"};
  CHECK(nearest("ad", equal) == "ab");
  CHECK(nearest("x", std::vector<std::string>{}) == "");
}
