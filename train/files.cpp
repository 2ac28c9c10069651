// train/files.cpp - durable writes: aside, fsync, rename, fsync of the directory.
//
// The last step is the one usually forgotten: a rename is a change of the directory, and without
// it a power cut may bring back the old name.
#include "train/files.h"

#include <fcntl.h>
#include <stdio.h>  // renameat2, RENAME_EXCHANGE
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>  // exchange

#include "tensor/check.h"  // InputError

namespace murmur {
namespace {

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
  if (descriptor < 0) fail_with(path, action, errno);
  return descriptor;
}

std::string directory_of(const std::string& path) {
  std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

// A link stays, and what it points to is replaced.
std::string target_of(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_symlink(path, ignored) || !path_exists(path)) return path;
  return std::filesystem::canonical(path).string();
}

}  // namespace

DurableFile::DurableFile(const std::string& path)
    : path_(target_of(path)), part_(path_ + ".part"), descriptor_(-1) {
  struct stat status;
  bool there = ::stat(path_.c_str(), &status) == 0;  // as root a rename replaces /dev/null too
  if (there && S_ISDIR(status.st_mode)) fail_with(path_, "write", EISDIR);
  if (there && !S_ISREG(status.st_mode))
    throw InputError(path_ + ": not a regular file, which is not written over; name another");
  // O_NONBLOCK: a pipe without a reader would wait for one here.
  descriptor_ = open_or_fail(part_, O_WRONLY | O_NONBLOCK | O_CREAT | O_TRUNC, "create");
}

DurableFile::~DurableFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(part_.c_str());
}

void DurableFile::write(const void* bytes, size_t count) {
  auto* p = static_cast<const char*>(bytes);
  while (count > 0) {  // one call writes at most 2 GB
    ssize_t written = uninterrupted([&] { return ::write(descriptor_, p, count); });
    if (written < 0) fail_with(part_, "write", errno);
    p += written;
    count -= size_t(written);
  }
}

void DurableFile::overwrite(uint64_t offset, const void* bytes, size_t count) {
  auto* p = static_cast<const char*>(bytes);
  while (count > 0) {
    ssize_t written = uninterrupted([&] { return ::pwrite(descriptor_, p, count, off_t(offset)); });
    if (written < 0) fail_with(part_, "write", errno);
    p += written;
    offset += uint64_t(written);
    count -= size_t(written);
  }
}

void DurableFile::commit() {
  if (uninterrupted([&] { return ::fsync(descriptor_); }) < 0) fail_with(part_, "write", errno);
  const char* action = "write";  // network disks report a full disk on closing
  bool done = ::close(std::exchange(descriptor_, -1)) == 0;
  if (done) {
    action = "put the finished file in place";
    done = ::rename(part_.c_str(), path_.c_str()) == 0;
  }
  if (!done) {
    int error = errno;
    ::unlink(part_.c_str());
    fail_with(path_, action, error);
  }
  sync_directory(directory_of(path_));
}

void check_writable(const std::string& flag, const std::string& path) {
  try {
    DurableFile tried(path);
  } catch (const InputError& error) {
    throw InputError(flag + ": " + error.what());
  }
}

void write_file_durably(const std::string& path, std::string_view bytes) {
  DurableFile file(path);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

void make_directories(const std::string& path) {
  std::error_code ignored;
  if (path.empty() || std::filesystem::is_directory(path, ignored)) return;
  std::string parent = directory_of(path);
  if (parent != path) make_directories(parent);
  if (::mkdir(path.c_str(), 0777) < 0) {
    int error = errno;
    if (std::filesystem::is_directory(path, ignored)) return;  // another process was faster
    bool is_file = error == EEXIST && path_exists(path);
    fail_with(path, "make this folder", is_file ? ENOTDIR : error);
  }
  sync_directory(parent);
}

void sync_directory(const std::string& path) {
  int descriptor = open_or_fail(path, O_RDONLY | O_DIRECTORY, "open the folder");
  int error = uninterrupted([&] { return ::fsync(descriptor); }) < 0 ? errno : 0;
  ::close(descriptor);
  if (error && error != EINVAL)
    fail_with(path, "write the folder", error);  // EINVAL: cannot, need not
}

void replace_directory(const std::string& from, const std::string& to) {
  if (!path_exists(to)) return rename_path(from, to);
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS) fail_with(to, "replace", errno);
  // A file system that cannot exchange two names (some network disks): `to` is missing for an
  // instant.
  std::string aside = from + ".old";
  rename_path(to, aside);
  rename_path(from, to);
  rename_path(aside, from);
}

void rename_path(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return;
  fail_with(from, "rename to " + to, errno);
}

void remove_tree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) fail_with(path, "remove", error.value());
}

}  // namespace murmur
