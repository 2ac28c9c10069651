// train/token_file.h - a token shard on disk, in the format of llm.c and modded-nanogpt.
//
//   256 x int32   magic 20240520, version 1, n, zeros      1024 bytes, little endian
//   n x uint16    the tokens                               the file is exactly 1024 + 2n bytes
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

namespace murmur {

class InputFile;

// Written aside and renamed: a shard is there as a whole or not at all.
void write_token_file(const std::string& path, std::span<const uint16_t> tokens);

// A shard, open for reading. Opening it checks the header, the length and that every token is below
// `vocab_size`, and so does every later read: what is wrong is an InputError, also where the file
// was cut or written over meanwhile. Copies share the open file, and it stays readable when its
// name is given to another.
class TokenFile {
 public:
  TokenFile(const std::string& path, int64_t vocab_size);

  const std::string& path() const;
  int64_t size() const { return size_; }  // in tokens
  void read(int64_t begin, std::span<uint16_t> to) const;
  // The tokens of [begin, end) one piece after another, none of them large.
  void for_each_piece(int64_t begin, int64_t end,
                      const std::function<void(std::span<const uint16_t>)>& visit) const;

 private:
  std::shared_ptr<const InputFile> file_;
  int64_t vocab_size_, size_ = 0;
};

}  // namespace murmur
