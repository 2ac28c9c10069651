// tensor/input_file.h - the one way in which Murmur reads files: regular files only, of bounded
// size.
//
// A pipe may never end and a device may never answer, so both are refused before a byte is read.
#pragma once

#include <cstdint>
#include <string>

namespace murmur {

// Throws what `error`, an errno, means for `path`: an InputError where the user can put it right
// (missing, forbidden, a folder where a file is needed), an Error for a full disk and the like.
[[noreturn]] void fail_with(const std::string& path, const std::string& action, int error);

constexpr uint64_t kAnySize = UINT64_MAX;

// A regular file, open for reading at any place. It stays readable when its name is removed.
class InputFile {
 public:
  explicit InputFile(std::string path, uint64_t most_bytes = kAnySize);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t bytes() const { return bytes_; }                       // when it was opened
  void read_at(uint64_t offset, void* to, uint64_t count) const;  // all of it, or InputError

 private:
  std::string path_;
  int descriptor_;
  uint64_t bytes_ = 0;
};

// The whole file. The limit suits every text that people write by hand; a reader that expects more
// says so.
std::string read_file(const std::string& path, uint64_t most_bytes = 16 << 20);

bool path_exists(const std::string& path);  // InputError where that cannot be found out

}  // namespace murmur
