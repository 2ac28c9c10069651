// tests/train/token_file_test.cpp - shards are llm.c's, bit for bit; damaged ones are named.
#include "train/token_file.h"

#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/train/temporary_folder.h"
#include "train/files.h"  // read_file

using namespace murmur;

namespace {

std::vector<uint16_t> counting(int64_t count) {
  std::vector<uint16_t> tokens(size_t(count), 0);
  for (size_t i = 0; i < tokens.size(); i++) tokens[i] = uint16_t(i);
  return tokens;
}

// A shard of three tokens with `value` at place `index` of the header.
std::string shard_with(size_t index, int32_t value) {
  std::string bytes(1024 + 2 * 3, '\0');
  const int32_t header[3] = {20240520, 1, 3};
  std::memcpy(bytes.data(), header, sizeof header);
  std::memcpy(bytes.data() + 4 * index, &value, 4);
  return bytes;
}

std::vector<uint16_t> tokens_of(const TokenFile& file) {
  std::vector<uint16_t> tokens(size_t(file.size()));
  file.read(0, tokens);
  return tokens;
}

std::string refusal(const std::string& path, const std::string& bytes) {
  put_bytes(path, bytes);
  return input_error_of([&] { TokenFile(path, 256); });
}

}  // namespace

TEST_CASE("a shard is 1024 bytes of header and two bytes a token") {
  TemporaryFolder folder;
  write_token_file(folder / "a.bin", std::vector<uint16_t>{1, 0x1234, 65535});
  const std::string bytes = read_file(folder / "a.bin");
  REQUIRE(bytes.size() == 1030);
  CHECK(bytes.substr(0, 12) == std::string("\x88\xd8\x34\x01\x01\0\0\0\x03\0\0\0", 12));
  CHECK(bytes.substr(12, 1012) == std::string(1012, '\0'));
  CHECK(bytes.substr(1024) == std::string("\x01\x00\x34\x12\xff\xff", 6));
}

TEST_CASE("what was written is read") {
  TemporaryFolder folder;
  const std::string path = folder / "a.bin";
  for (int64_t count : {0, 1, 2, 1000, 65536}) {
    CAPTURE(count);
    const std::vector<uint16_t> tokens = counting(count);
    write_token_file(path, tokens);
    const TokenFile file(path, 65536);
    CHECK(file.path() == path);
    CHECK(tokens_of(file) == tokens);
  }
}

TEST_CASE("a copy keeps the tokens when the first is gone and the name is replaced") {
  TemporaryFolder folder;
  const std::string path = folder / "a.bin";
  write_token_file(path, std::vector<uint16_t>{1, 2, 3});
  auto first = std::make_unique<TokenFile>(path, 256);
  const TokenFile copy = *first;
  first.reset();
  write_token_file(path, std::vector<uint16_t>{9});
  CHECK(tokens_of(copy) == std::vector<uint16_t>{1, 2, 3});
  CHECK(tokens_of(TokenFile(path, 256)) == std::vector<uint16_t>{9});
}

TEST_CASE("a shard that is cut or written over while it is open is an error, not a signal") {
  TemporaryFolder folder;
  const std::string path = folder / "a.bin";
  write_token_file(path, counting(5000));
  const TokenFile file(path, 5000);
  std::vector<uint16_t> tokens(10);
  std::filesystem::resize_file(path, 1024 + 2 * 100);
  file.read(90, tokens);
  CHECK(tokens.back() == 99);
  CHECK(says(input_error_of([&] { file.read(91, tokens); }), path, "became shorter"));
  put_bytes(path, std::string(1024 + 2 * 5000, '\x7f'));
  CHECK(says(input_error_of([&] { file.read(40, tokens); }), path, "token 32639 at position 40"));
}

TEST_CASE("the sound shard that the damaged ones below are made from opens") {
  TemporaryFolder folder;
  CHECK(refusal(folder / "a.bin", shard_with(0, 20240520)) == "");
}

TEST_CASE("another magic number: says what the file probably is") {
  TemporaryFolder folder;
  const std::string path = folder / "a.bin";
  const struct {
    int32_t magic;
    const char* probably;
  } rows[] = {{20240801, "Llama-3"},     {20240522, "HellaSwag"}, {20240326, "llm.c model"},
              {20240327, "debug state"}, {20240527, "optimizer"}, {20240328, "llm.c tokenizer"},
              {0x00050003, "nanoGPT"}};
  for (const auto& row : rows) {
    CAPTURE(row.magic);
    const std::string error = refusal(path, shard_with(0, row.magic));
    CHECK(says(error, path, row.probably));
    CHECK(says(error, path, std::to_string(row.magic)));
  }
}

TEST_CASE("another version is refused") {
  TemporaryFolder folder;
  CHECK(says(refusal(folder / "a.bin", shard_with(1, 7)), folder / "a.bin", "version 7"));
}

TEST_CASE("a length that does not fit the header is refused, by one byte too") {
  TemporaryFolder folder;
  const std::string path = folder / "a.bin";
  const std::string sound = shard_with(0, 20240520);
  CHECK(says(refusal(path, sound.substr(0, 1029)), path, "truncated"));
  CHECK(says(refusal(path, sound.substr(0, 1024)), path, "truncated"));
  CHECK(says(refusal(path, sound + "x"), path, "1 bytes too many"));
  CHECK(says(refusal(path, shard_with(2, 2147483647)), path, "truncated"));
  CHECK(says(refusal(path, shard_with(2, -1)), path, "the header says -1 tokens"));
  CHECK(says(refusal(path, sound.substr(0, 1023)), path, "too short for the header"));
  CHECK(says(refusal(path, ""), path, "too short for the header"));
}

TEST_CASE("the first token outside the vocabulary is named with its position") {
  TemporaryFolder folder;
  const std::string path = folder / "a.bin";
  write_token_file(path, std::vector<uint16_t>{0, 64, 65, 900, 3});
  const std::string error = input_error_of([&] { TokenFile(path, 65); });
  CHECK(says(error, path, "token 65 at position 2"));
  CHECK(says(error, path, "vocabulary of 65"));
  CHECK(input_error_of([&] { TokenFile(path, 901); }) == "");
}

TEST_CASE("missing files and folders are refused") {
  TemporaryFolder folder;
  CHECK(says(input_error_of([&] { TokenFile(folder / "none.bin", 256); }), folder / "none.bin",
             "No such file"));
  CHECK(says(input_error_of([&] { TokenFile(folder.path(), 256); }), folder.path(),
             "Is a directory"));
}
