// tests/train/temporary_folder.h - a folder of a test's own, and the text of what a call throws.
#pragma once

#include <signal.h>        // SIGXFSZ
#include <sys/resource.h>  // RLIMIT_FSIZE
#include <unistd.h>        // getpid

#include <cstdlib>  // getenv
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "tensor/check.h"

// Made empty, and removed with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder() : TemporaryFolder(std::filesystem::temp_directory_path()) {}
  explicit TemporaryFolder(const std::filesystem::path& parent) {
    static int count = 0;
    path_ = (parent / ("murmur-test-" + std::to_string(getpid()) + "-" + std::to_string(count++)))
                .string();
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// In memory where there is room: a run waits for the disk at every checkpoint, and a disk that
// others use makes that minutes. TMPDIR wins.
inline std::filesystem::path quick_place() {
  std::error_code absent;
  auto space = std::filesystem::space("/dev/shm", absent);
  bool quick = !std::getenv("TMPDIR") && !absent && space.available > (256u << 20);
  return quick ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path();
}

// Plain and quick, where a test wants to damage something.
inline void put_bytes(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
}

// While it lives no file can grow beyond `bytes`, as with ulimit -f, and a full disk.
class FileLimit {
 public:
  explicit FileLimit(rlim_t bytes) : before_(signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &old_);
    rlimit now{bytes, old_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &now);
  }
  ~FileLimit() {
    setrlimit(RLIMIT_FSIZE, &old_);
    signal(SIGXFSZ, before_);
  }

 private:
  rlimit old_;
  void (*before_)(int);
};

// While it lives, commands start in this folder.
struct WorkingDirectory {
  explicit WorkingDirectory(const std::string& folder) { std::filesystem::current_path(folder); }
  ~WorkingDirectory() { std::filesystem::current_path(before); }
  const std::filesystem::path before = std::filesystem::current_path();
};

// The message of the InputError that `call` throws; "" when it throws nothing. Any other exception
// passes through and fails the test.
template <class Call>
std::string input_error_of(Call call) {
  try {
    call();
  } catch (const murmur::InputError& error) {
    return error.what();
  }
  return "";
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

// The message is one line, names the file, and says `part`.
inline bool says(const std::string& message, const std::string& path, const std::string& part) {
  return contains(message, path) && contains(message, part) && !contains(message, "\n");
}
