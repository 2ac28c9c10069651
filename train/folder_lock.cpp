// train/folder_lock.cpp - flock(), on a file that goes when nobody needs it any more.
#include "train/folder_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>  // flock
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "tensor/check.h"
#include "train/files.h"

namespace murmur {

void FolderLock::take(const std::string& folder) {
  if (try_take(folder)) return;
  std::string holder;
  try {
    holder = read_file(path_);
  } catch (const Error&) {  // it has just ended
  }
  throw InputError(fmt::format(
      "out: '{}' is in use: {} writes into it; wait for its end, or name another folder", folder,
      holder.empty() ? "another process" : holder));
}

bool FolderLock::try_take(const std::string& folder) {
  path_ = folder + "/.lock";
  std::error_code ignored;
  for (std::filesystem::path p(folder); !p.empty() && !std::filesystem::exists(p, ignored);
       p = p.parent_path())
    made_.push_back(p.string());
  while (true) {
    make_directories(folder);
    int file = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (file < 0) {
      throw InputError(
          fmt::format("{}: cannot create: {}; change its permissions or choose another place",
                      path_, std::generic_category().message(errno)));
    }
    // A file system without locks (some network disks) has another error: no protection there.
    bool taken = ::flock(file, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
    struct stat own, named;
    bool removed = ::fstat(file, &own) != 0 || ::stat(path_.c_str(), &named) != 0 ||
                   own.st_ino != named.st_ino;  // by its last holder, a moment ago
    if (taken && !removed) {
      char host[256] = "";
      ::gethostname(host, sizeof host - 1);
      if (::ftruncate(file, 0) == 0) ::dprintf(file, "process %d on %s", int(::getpid()), host);
      descriptor_ = file;
      return true;
    }
    ::close(file);
    if (!removed) return false;
  }
}

FolderLock::~FolderLock() {
  if (descriptor_ < 0) return;
  ::unlink(path_.c_str());  // while it is locked: who waits for its end looks for the name again
  ::close(descriptor_);
  for (const std::string& folder : made_) {
    if (::rmdir(folder.c_str()) != 0) break;  // something is in it
  }
}

}  // namespace murmur
