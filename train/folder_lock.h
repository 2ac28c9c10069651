// train/folder_lock.h - one process at a time writes into a folder.
#pragma once

#include <string>
#include <vector>

namespace murmur {

// FOLDER/.lock, locked by the system for as long as this object, or at most its process, lives: a
// process that is killed leaves nothing that has to be cleared away. The folder is made where it is
// missing, and is gone again if nothing was put into it.
class FolderLock {
 public:
  FolderLock() = default;
  FolderLock(const FolderLock&) = delete;
  ~FolderLock();

  void take(const std::string& folder);      // InputError: another process has it
  bool try_take(const std::string& folder);  // false: another process has it
  bool held() const { return descriptor_ >= 0; }

 private:
  std::string path_;
  std::vector<std::string> made_;  // folders, the innermost first
  int descriptor_ = -1;
};

}  // namespace murmur
