// train/files.h - files that are whole or absent, and errors that name the path.
//
// Every failure says path, what failed, why, and what to do. A path the user can put right
// (missing, forbidden, a folder where a file is needed) is an InputError; a full disk and the like
// an Error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace murmur {

// A file that appears under its name only when it is whole: written aside as PATH.part, fsynced,
// renamed over PATH, directory fsynced. Without commit() nothing is left behind. One writer a path.
class DurableFile {
 public:
  explicit DurableFile(std::string path);
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  void write(const void* bytes, size_t count);                       // at the end
  void overwrite(uint64_t offset, const void* bytes, size_t count);  // what was written before
  void commit();

 private:
  std::string path_, part_;
  int descriptor_;
};

void write_file_durably(const std::string& path, std::string_view bytes);

// A regular file, open for reading at any place. It stays readable when its name is removed.
class InputFile {
 public:
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t bytes() const { return bytes_; }                     // when it was opened
  void read_at(uint64_t offset, void* to, size_t count) const;  // all of it, or InputError

 private:
  std::string path_;
  int descriptor_;
  uint64_t bytes_ = 0;
};

std::string read_file(const std::string& path);  // the whole file; pipes too

void make_directories(const std::string& path);  // with missing parents, durably
void sync_directory(const std::string& path);    // makes creations, renames and removals in it last

// Puts the directory `from` in the place of `to`, in one act where the file system can exchange two
// names. What stood there, if anything, is then at `from`.
void replace_directory(const std::string& from, const std::string& to);

void rename_path(const std::string& from, const std::string& to);
void remove_tree(const std::string& path);  // nothing there is fine

}  // namespace murmur
