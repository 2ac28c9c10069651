// tests/dist/launch_test.cpp - what a launcher that starts the ranks itself hands on to them, and
// what becomes of them without it. The ranks are this program once more.
#include "dist/launch.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

using namespace murmur;

namespace {

constexpr const char* kFolder = "MURMUR_TEST_FOLDER";  // where a rank says what it does
volatile sig_atomic_t stopped = 0, saved = 0;

struct Launcher {
  std::string folder;
  pid_t pid;

  // Ranks that take `seconds` to save before they stop.
  explicit Launcher(double seconds) {
    folder = (std::filesystem::temp_directory_path() / "murmur-launch-XXXXXX").string();
    REQUIRE(mkdtemp(folder.data()));
    setenv(kFolder, folder.c_str(), 1);
    pid = fork();
    if (pid == 0) {
      setenv("MURMUR_TEST_SECONDS", std::to_string(seconds).c_str(), 1);
      _exit(launch(2, "nccl", "", false, {"-ns", "-tc=launch: the work of a rank"}));
    }
    unsetenv(kFolder);
    for (int rank : {0, 1}) wait_for("ready", rank);
  }
  ~Launcher() { std::filesystem::remove_all(folder); }

  std::string path(const std::string& what, int rank) const {
    return folder + "/" + what + std::to_string(rank);
  }
  bool has(const std::string& what, int rank) const {
    return std::filesystem::exists(path(what, rank));
  }
  void wait_for(const std::string& what, int rank) const {
    for (int i = 0; i < 10000 && !has(what, rank); i++) usleep(1000);
    REQUIRE(has(what, rank));
  }
  pid_t rank_pid(int rank) const {
    pid_t of_rank = 0;
    std::ifstream(path("ready", rank)) >> of_rank;
    return of_rank;
  }
  int wait() const {
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
};

void say(const std::string& what) {
  const std::string name = std::string(std::getenv(kFolder)) + "/" + what + std::getenv("RANK");
  std::ofstream(name + ".part") << getpid();
  std::filesystem::rename(name + ".part", name);
}

}  // namespace

TEST_CASE("launch: the work of a rank" * doctest::skip()) {
  if (!std::getenv(kFolder)) return;
  signal(SIGUSR1, [](int) { saved = 1; });
  signal(SIGUSR2, [](int) { stopped = 1; });
  say("ready");
  for (int i = 0; i < 60000 && !stopped; i++, usleep(1000)) {
    if (saved) say("saved");
    saved = 0;
  }
  say("stops");
  auto end = std::chrono::steady_clock::now() +
             std::chrono::duration<double>(std::atof(std::getenv("MURMUR_TEST_SECONDS")));
  while (std::chrono::steady_clock::now() < end) usleep(1000);
  say("stopped");
  _exit(130);
}

TEST_CASE("launch: signals reach the ranks, which take the time they need to save") {
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR2}) {
    CAPTURE(signal);
    Launcher launcher(signal == SIGTERM ? 5.5 : 0.1);
    kill(launcher.pid, SIGUSR1);
    for (int rank : {0, 1}) launcher.wait_for("saved", rank);
    kill(launcher.pid, signal);
    for (int rank : {0, 1}) launcher.wait_for("stops", rank);
    if (signal != SIGINT) kill(launcher.pid, signal);  // again: what stops, stops
    CHECK(launcher.wait() == 130);
    for (int rank : {0, 1}) CHECK(launcher.has("stopped", rank));
  }
}

TEST_CASE("launch: Ctrl-C counts also where a script started it in the background") {
  auto before = signal(SIGINT, SIG_IGN);  // as a shell does with `&`
  Launcher launcher(0.1);
  signal(SIGINT, before);
  kill(launcher.pid, SIGINT);
  for (int rank : {0, 1}) launcher.wait_for("stops", rank);
  CHECK(launcher.wait() == 130);
}

TEST_CASE("launch: a second Ctrl-C ends the ranks at once") {
  Launcher launcher(60);
  kill(launcher.pid, SIGINT);
  for (int rank : {0, 1}) launcher.wait_for("stops", rank);
  kill(launcher.pid, SIGINT);
  CHECK(launcher.wait() == 1);
}

TEST_CASE("launch: ranks do not outlive a launcher that was killed") {
  prctl(PR_SET_CHILD_SUBREAPER, 1);  // who is left without a parent becomes this one's
  Launcher launcher(60);
  kill(launcher.pid, SIGKILL);
  CHECK(launcher.wait() == -SIGKILL);
  for (int rank : {0, 1}) {
    int status = 0;
    REQUIRE(waitpid(launcher.rank_pid(rank), &status, 0) > 0);
    CHECK(WIFSIGNALED(status));
  }
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}
