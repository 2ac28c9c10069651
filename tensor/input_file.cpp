// tensor/input_file.cpp - open, look at what it is, then read.
#include "tensor/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "tensor/check.h"

namespace murmur {

void fail_with(const std::string& path, const std::string& action, int error) {
  auto line = [&](const std::string& remedy, const std::string& kind = "") {
    std::string reason = std::generic_category().message(error);
    return path + ": cannot " + action + ": " +
           (kind.empty() ? reason : kind + " (" + reason + ")") + "; " + remedy;
  };
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      throw Error(line("free some space and try again", "disk full"));
    case EFBIG:
      throw Error(line("raise the limit on file sizes (ulimit -f), or choose another disk"));
    case EMFILE:
      throw Error(line("raise the limit on open files (ulimit -n)"));
    case EACCES:
    case EPERM:
    case EROFS:
      throw InputError(line("change its permissions or choose another place"));
    case EBUSY:
      throw InputError(line("something is mounted there; choose a folder inside it"));
    case ENOENT:
    case EEXIST:
    case EISDIR:
    case ENOTDIR:
    case ENAMETOOLONG:
    case ELOOP:
    case EINVAL:
    case ENXIO:
    case ENODEV:
      throw InputError(line("check the path"));
    default:
      throw Error(line("check the disk and the system's log"));
  }
}

InputFile::InputFile(std::string path, uint64_t most_bytes) : path_(std::move(path)) {
  // O_NONBLOCK: a pipe without a writer would wait for one here.
  do {
    descriptor_ = ::open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  } while (descriptor_ < 0 && errno == EINTR);
  if (descriptor_ < 0) fail_with(path_, "open", errno);
  try {
    struct stat status;
    if (::fstat(descriptor_, &status) < 0) fail_with(path_, "read", errno);
    if (S_ISDIR(status.st_mode)) fail_with(path_, "read", EISDIR);
    if (!S_ISREG(status.st_mode))
      throw InputError(path_ + ": not a regular file; copy what it delivers into one");
    bytes_ = uint64_t(status.st_size);
    if (bytes_ > most_bytes) {
      throw InputError(path_ + ": has " + std::to_string(bytes_) + " bytes, at most " +
                       std::to_string(most_bytes) + " are read here; is it the right file?");
    }
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

InputFile::~InputFile() { ::close(descriptor_); }

void InputFile::read_at(uint64_t offset, void* to, uint64_t count) const {
  auto* p = static_cast<char*>(to);
  while (count > 0) {
    ssize_t got = ::pread(descriptor_, p, count, off_t(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_with(path_, "read", errno);
    if (got == 0) throw InputError(path_ + ": became shorter while it was read; use another copy");
    p += got;
    offset += uint64_t(got);
    count -= uint64_t(got);
  }
}

std::string read_file(const std::string& path, uint64_t most_bytes) {
  InputFile file(path, most_bytes);
  std::string bytes(file.bytes(), '\0');
  file.read_at(0, bytes.data(), bytes.size());
  return bytes;
}

bool path_exists(const std::string& path) {
  struct stat status;
  if (::stat(path.c_str(), &status) == 0) return true;
  if (errno != ENOENT && errno != ENOTDIR) fail_with(path, "look at it", errno);
  return false;
}

}  // namespace murmur
