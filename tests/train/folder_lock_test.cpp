// tests/train/folder_lock_test.cpp - a folder has one writer; one that was killed is none.
#include "train/folder_lock.h"

#include <unistd.h>

#include "tests/train/run_command.h"

using namespace murmur;

TEST_CASE("a locked folder is refused by name of who has it, and nothing stays behind") {
  TemporaryFolder folder{quick_place()};
  const std::string run = folder / "runs/one";
  {
    FolderLock first, second;
    first.take(run);
    CHECK(!second.try_take(run));
    std::string message = input_error_of([&] { second.take(run); });
    CHECK(says(message, run, "process " + std::to_string(getpid()) + " on "));
  }
  CHECK(!std::filesystem::exists(folder / "runs"));
  {
    FolderLock again;
    again.take(run);
    put_bytes(run + "/log", "precious");
  }
  CHECK(files_below(folder.path()) ==
        std::map<std::string, std::string>{{"runs/one/log", "precious"}});
}

TEST_CASE("the lock of a killed process is no lock") {
  TemporaryFolder folder{quick_place()};
  int ready[2];
  REQUIRE(pipe(ready) == 0);
  pid_t other = fork();
  if (other == 0) {
    FolderLock lock;
    lock.take(folder.path());
    if (write(ready[1], "", 1) == 1) pause();
    _exit(1);
  }
  char byte;
  REQUIRE(read(ready[0], &byte, 1) == 1);
  FolderLock lock;
  CHECK(!lock.try_take(folder.path()));
  kill(other, SIGKILL);
  waitpid(other, nullptr, 0);
  CHECK(std::filesystem::exists(folder / ".lock"));
  CHECK(lock.try_take(folder.path()));
  for (int end : ready) close(end);
}

TEST_CASE("every command that fills a run folder leaves one in use alone") {
  Workplace place;
  std::string small = place / "run";
  Words race = {"compare", "--data", place.data, "--steps", "1", "--seeds", "1", "--out", small};
  const std::vector<Words> commands = {place.train("run", {"--steps", "1"}),
                                       place.train("run", {"--steps", "1", "--resume"}),
                                       place.train("run", {"--steps", "1", "--nodes", "2"}),
                                       race,
                                       race + Words{"--over", "schedule=wsd,cosine"},
                                       {"synthetic", "--recipes", "dsgd", "--nodes", "2", "--steps",
                                        "1", "--seeds", "1", "--out", small}};
  FolderLock lock;
  lock.take(small);
  const auto before = files_below(place.folder.path());
  for (const Words& command : commands)
    check_refused(command, {small, "in use", std::to_string(getpid())});
  CHECK(files_below(place.folder.path()) == before);
}
