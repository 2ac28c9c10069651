// train/token_file.h - a token shard on disk, in the format of llm.c and modded-nanogpt.
//
//   256 x int32   magic 20240520, version 1, n, zeros      1024 bytes, little endian
//   n x uint16    the tokens                               the file is exactly 1024 + 2n bytes
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace murmur {

// Written aside and renamed: a shard is there as a whole or not at all.
void write_token_file(const std::string& path, std::span<const uint16_t> tokens);

// A shard mapped into memory, read only. Opening it checks the header, the length and that every
// token is below `vocab_size`; what is wrong is an InputError. Copies share the mapping.
class TokenFile {
 public:
  TokenFile(const std::string& path, int64_t vocab_size);

  const std::string& path() const { return path_; }
  std::span<const uint16_t> tokens() const { return tokens_; }

 private:
  std::string path_;
  std::shared_ptr<const void> mapping_;
  std::span<const uint16_t> tokens_;
};

}  // namespace murmur
