// tests/train/run_command.h - the murmur program as a user runs it: started, perhaps interrupted,
// waited for; its two outputs and how it ended. And the small data and runs it is tried on.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>    // kill
#include <spawn.h>     // posix_spawn
#include <sys/wait.h>  // waitpid

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>  // exchange
#include <vector>

#include "tests/train/temporary_folder.h"

extern char** environ;

using Words = std::vector<std::string>;

inline Words operator+(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

struct Outcome {
  int code = -1;   // exit code; -1 where a signal ended it
  int signal = 0;  // 0: it ended by itself
  std::string out, err;
};

// One running murmur. Its outputs go to files, so that it never waits for a reader. `output`: the
// standard output instead; "": closed, like the standard input.
class Command {
 public:
  explicit Command(const Words& words, std::optional<std::string> output = {})
      : out_(std::tmpfile()), err_(std::tmpfile()) {
    std::vector<char*> argv = {const_cast<char*>(MURMUR_BINARY)};
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fileno(out_), 1);
    posix_spawn_file_actions_adddup2(&actions, fileno(err_), 2);
    if (output == "") {
      for (int stream : {0, 1}) posix_spawn_file_actions_addclose(&actions, stream);
    } else if (output) {
      posix_spawn_file_actions_addopen(&actions, 1, output->c_str(), O_WRONLY, 0);
    }
    int error = posix_spawn(&process_, MURMUR_BINARY, &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    REQUIRE(error == 0);
  }
  ~Command() {
    if (process_ > 0) {
      kill(process_, SIGKILL);
      waitpid(process_, nullptr, 0);
    }
    std::fclose(out_);
    std::fclose(err_);
  }
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  void send(int signal) const { kill(process_, signal); }

  Outcome wait() {
    int status = 0;
    REQUIRE(waitpid(std::exchange(process_, 0), &status, 0) > 0);
    Outcome outcome{.out = content(out_), .err = content(err_)};
    if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
    return outcome;
  }

 private:
  static std::string content(std::FILE* file) {
    std::string text;
    char buffer[4096];
    std::rewind(file);
    while (size_t got = std::fread(buffer, 1, sizeof buffer, file)) text.append(buffer, got);
    return text;
  }

  std::FILE *out_, *err_;
  pid_t process_ = 0;
};

inline Outcome run_command(const Words& words) { return Command(words).wait(); }

inline std::string joined(const Words& words) {
  std::string line = "murmur";
  for (const std::string& word : words) line += " " + word;
  return line;
}

// Runs what must succeed, and gives what it printed.
inline std::string output_of(const Words& words) {
  Outcome outcome = run_command(words);
  std::string command = joined(words);
  CAPTURE(command);
  CAPTURE(outcome.err);
  REQUIRE(outcome.signal == 0);
  REQUIRE(outcome.code == 0);
  return outcome.out;
}

// Runs what must be refused: exit code 2 and one line, "murmur: ..", which says every part.
inline void check_refused(const Words& words, const Words& parts) {
  Outcome outcome = run_command(words);
  std::string command = joined(words);
  CAPTURE(command);
  CAPTURE(outcome.err);
  CHECK(outcome.signal == 0);
  CHECK(outcome.code == 2);
  CHECK(outcome.err.starts_with("murmur: "));
  CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
  CHECK(outcome.err.ends_with("\n"));
  CHECK(outcome.err.size() < 400);
  for (const std::string& part : parts) {
    CAPTURE(part);
    CHECK(contains(outcome.err, part));
  }
}

// The same command with another value of a flag that it has.
inline Words with(Words words, const std::string& flag, const std::string& value) {
  auto at = std::find(words.begin(), words.end(), flag);
  REQUIRE(at + 1 < words.end());
  at[1] = value;
  return words;
}

// About 20 KB of lines that are neither constant nor periodic.
inline std::string some_text(size_t bytes = 20000) {
  const char* words[] = {"river", "stone", "under", "light", "seven", "walks",
                         "again", "north", "keeps", "bread", "a",     "of"};
  std::mt19937 random(7);
  std::string text;
  while (text.size() < bytes)
    text += words[random() % 12] + std::string(random() % 9 ? " " : ".\n");
  return text;
}

// A folder with data of the byte tokenizer in data/, prepared by the program itself.
struct Workplace {
  TemporaryFolder folder{quick_place()};
  std::string data = folder / "data";

  Workplace() {
    put_bytes(folder / "text.txt", some_text());
    output_of({"data", "prepare", folder / "text.txt", "--out", data});
  }
  std::string operator/(const std::string& name) const { return folder / name; }

  // A run of the smallest useful model, into `name`.
  Words train(const std::string& name, const Words& more = {}) const {
    return Words{"train",
                 "--data",
                 data,
                 "--out",
                 folder / name,
                 "--n-layer",
                 "1",
                 "--n-head",
                 "2",
                 "--n-embd",
                 "16",
                 "--block-size",
                 "16",
                 "--batch-size",
                 "4",
                 "--threads",
                 "1"} +
           more;
  }
};

// Every file below a folder, by its path there.
inline std::map<std::string, std::string> files_below(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    files[std::filesystem::relative(entry.path(), folder).string()] = {
        std::istreambuf_iterator<char>(in), {}};
  }
  return files;
}
