// train/files.h - files that are whole or absent; reading is in tensor/input_file.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "tensor/input_file.h"

namespace murmur {

// A file that appears under its name only when it is whole: written aside as PATH.part, fsynced,
// renamed over PATH, directory fsynced. Without commit() nothing is left behind. One writer a path.
// A PATH that is there and no regular file is refused: a rename would replace a device too.
class DurableFile {
 public:
  explicit DurableFile(const std::string& path);
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

// Complains before hours of work of what would be wrong with `path` after them; `flag` named it.
void check_writable(const std::string& flag, const std::string& path);

void write_file_durably(const std::string& path, std::string_view bytes);

void make_directories(const std::string& path);  // with missing parents, durably
void sync_directory(const std::string& path);    // makes creations, renames and removals in it last

// Puts the directory `from` in the place of `to`, in one act where the file system can exchange two
// names. What stood there, if anything, is then at `from`.
void replace_directory(const std::string& from, const std::string& to);

void rename_path(const std::string& from, const std::string& to);
void remove_tree(const std::string& path);  // nothing there is fine

}  // namespace murmur
