// train/files.cpp - durable writes: aside, fsync, rename, fsync of the directory.
//
// The last step is the one usually forgotten: a rename is a change of the directory, and without
// it a power cut may bring back the old name.
#include "train/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>  // renameat2, RENAME_EXCHANGE
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>  // exchange

#include "tensor/check.h"  // Error, InputError

namespace murmur {
namespace {

[[noreturn]] void fail(const std::string& path, const char* action, int error) {
  std::string reason = std::generic_category().message(error);
  auto line = [&](const std::string& why, const char* remedy) {
    return fmt::format("{}: cannot {}: {}; {}", path, action, why, remedy);
  };
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      throw Error(line("disk full (" + reason + ")", "free some space and try again"));
    case EACCES:
    case EPERM:
    case EROFS:
      throw InputError(line(reason, "change its permissions or choose another place"));
    case ENOENT:
    case EISDIR:
    case ENOTDIR:
    case ENAMETOOLONG:
    case ELOOP:
      throw InputError(line(reason, "check the path"));
    default:
      throw Error(line(reason, "check the disk and the system's log"));
  }
}

// Calls again what a signal interrupted.
template <class Call>
auto uninterrupted(Call call) {
  for (;;) {
    auto result = call();
    if (result >= 0 || errno != EINTR) return result;
  }
}

int open_or_fail(const std::string& path, int flags, const char* action) {
  int descriptor = uninterrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, 0666); });
  if (descriptor < 0) fail(path, action, errno);
  return descriptor;
}

std::string directory_of(const std::string& path) {
  std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

}  // namespace

DurableFile::DurableFile(std::string path)
    : path_(std::move(path)),
      part_(path_ + ".part"),
      descriptor_(open_or_fail(part_, O_WRONLY | O_CREAT | O_TRUNC, "create")) {}

DurableFile::~DurableFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(part_.c_str());
}

void DurableFile::write(const void* bytes, size_t count) {
  auto* p = static_cast<const char*>(bytes);
  while (count > 0) {  // one call writes at most 2 GB
    ssize_t written = uninterrupted([&] { return ::write(descriptor_, p, count); });
    if (written < 0) fail(part_, "write", errno);
    p += written;
    count -= size_t(written);
  }
}

void DurableFile::overwrite(uint64_t offset, const void* bytes, size_t count) {
  auto* p = static_cast<const char*>(bytes);
  while (count > 0) {
    ssize_t written = uninterrupted([&] { return ::pwrite(descriptor_, p, count, off_t(offset)); });
    if (written < 0) fail(part_, "write", errno);
    p += written;
    offset += uint64_t(written);
    count -= size_t(written);
  }
}

void DurableFile::commit() {
  if (uninterrupted([&] { return ::fsync(descriptor_); }) < 0) fail(part_, "write", errno);
  const char* action = "write";  // network disks report a full disk on closing
  bool done = ::close(std::exchange(descriptor_, -1)) == 0;
  if (done) {
    action = "put the finished file in place";
    done = ::rename(part_.c_str(), path_.c_str()) == 0;
  }
  if (!done) {
    int error = errno;
    ::unlink(part_.c_str());
    fail(path_, action, error);
  }
  sync_directory(directory_of(path_));
}

void write_file_durably(const std::string& path, std::string_view bytes) {
  DurableFile file(path);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

InputFile::InputFile(std::string path)
    : path_(std::move(path)), descriptor_(open_or_fail(path_, O_RDONLY | O_NONBLOCK, "open")) {
  struct stat status;
  int error = ::fstat(descriptor_, &status) < 0 ? errno : 0;
  if (!error && S_ISDIR(status.st_mode)) error = EISDIR;
  if (error || !S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    if (error) fail(path_, "read", error);
    throw InputError(path_ + ": not a regular file; copy what it delivers into one");
  }
  bytes_ = uint64_t(status.st_size);
}

InputFile::~InputFile() { ::close(descriptor_); }

void InputFile::read_at(uint64_t offset, void* to, size_t count) const {
  auto* p = static_cast<char*>(to);
  while (count > 0) {
    ssize_t got = uninterrupted([&] { return ::pread(descriptor_, p, count, off_t(offset)); });
    if (got < 0) fail(path_, "read", errno);
    if (got == 0) throw InputError(path_ + ": became shorter while it was read; use another copy");
    p += got;
    offset += uint64_t(got);
    count -= size_t(got);
  }
}

std::string read_file(const std::string& path) {
  int descriptor = open_or_fail(path, O_RDONLY, "open");
  struct stat status;
  bool has_size = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  std::string bytes(has_size ? size_t(status.st_size) + 1 : 0, '\0');  // one more, to see the end
  size_t size = 0;
  ssize_t got;
  do {
    if (size == bytes.size()) bytes.resize(size + size / 2 + 65536);
    got = uninterrupted([&] { return ::read(descriptor, &bytes[size], bytes.size() - size); });
    if (got > 0) size += size_t(got);
  } while (got > 0);
  int error = errno;
  ::close(descriptor);
  if (got < 0) fail(path, "read", error);
  bytes.resize(size);
  return bytes;
}

void make_directories(const std::string& path) {
  std::error_code ignored;
  if (path.empty() || std::filesystem::is_directory(path, ignored)) return;
  std::string parent = directory_of(path);
  if (parent != path) make_directories(parent);
  if (::mkdir(path.c_str(), 0777) < 0) {
    int error = errno;
    if (std::filesystem::is_directory(path, ignored)) return;  // another process was faster
    fail(path, "make this folder", error == EEXIST ? ENOTDIR : error);
  }
  sync_directory(parent);
}

void sync_directory(const std::string& path) {
  int descriptor = open_or_fail(path, O_RDONLY | O_DIRECTORY, "open the folder");
  int error = uninterrupted([&] { return ::fsync(descriptor); }) < 0 ? errno : 0;
  ::close(descriptor);
  if (error && error != EINVAL) fail(path, "write the folder", error);  // EINVAL: cannot, need not
}

void replace_directory(const std::string& from, const std::string& to) {
  std::error_code ignored;
  if (!std::filesystem::exists(to, ignored)) return rename_path(from, to);
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS) fail(to, "replace", errno);
  // A file system that cannot exchange two names (some network disks): `to` is missing for an
  // instant.
  std::string aside = from + ".old";
  rename_path(to, aside);
  rename_path(from, to);
  rename_path(aside, from);
}

void rename_path(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return;
  int error = errno;
  fail(from, ("rename to " + to).c_str(), error);
}

void remove_tree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) fail(path, "remove", error.value());
}

}  // namespace murmur
