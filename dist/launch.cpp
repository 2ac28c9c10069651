// dist/launch.cpp - processes with the variables of torchrun, or mpirun in the place of this one.
#include "dist/launch.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "tensor/check.h"

namespace murmur {
namespace {

constexpr std::chrono::seconds kTimeToStop(5);  // between SIGTERM and SIGKILL

// The value of --NAME VALUE or --NAME=VALUE; "" where it is absent. The last one counts.
std::string flag(const std::vector<std::string>& args, const std::string& name) {
  std::string value;
  for (size_t i = 0; i < args.size(); i++) {
    if (args[i] == name && i + 1 < args.size()) value = args[i + 1];
    if (args[i].rfind(name + "=", 0) == 0) value = args[i].substr(name.size() + 1);
  }
  return value;
}

// Replaces this process; comes back only where that is not possible.
void execute(const std::string& program, const std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execvp(program.c_str(), argv.data());
}

bool on_path(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::string folders = path ? path : "";
  for (size_t begin = 0; begin <= folders.size();) {
    size_t end = std::min(folders.find(':', begin), folders.size());
    if (access((folders.substr(begin, end - begin) + "/" + program).c_str(), X_OK) == 0)
      return true;
    begin = end + 1;
  }
  return false;
}

// One that nobody listens on now.
int free_port() {
  int s = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  bool found = s >= 0 && bind(s, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
               getsockname(s, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  if (s >= 0) close(s);
  check(found, "launch: there is no free port on 127.0.0.1");
  return ntohs(address.sin_port);
}

// The processors of this host, shared by the ranks on it, unless the user has said otherwise.
void share_cores(int64_t ranks) {
  cpu_set_t cores;
  int64_t count = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
  setenv("OMP_NUM_THREADS", std::to_string(std::max<int64_t>(1, count / ranks)).c_str(), 0);
}

class Children {
 public:
  Children(int64_t ranks, const std::vector<std::string>& words) {
    // From here on signals wait until wait_for_all() asks for them.
    sigemptyset(&signals_);
    for (int signal : {SIGCHLD, SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals_, signal);
    sigprocmask(SIG_BLOCK, &signals_, nullptr);
    std::string port = std::to_string(free_port());
    for (int64_t rank = 0; rank < ranks; rank++) {
      pid_t pid = fork();
      if (pid < 0) {
        int code = errno;
        tell_all(SIGKILL);
        throw Error(fmt::format("launch: rank {} does not start: {}", rank, std::strerror(code)));
      }
      if (pid > 0) {
        pids_.push_back(pid);
        continue;
      }
      sigprocmask(SIG_UNBLOCK, &signals_, nullptr);
      prctl(PR_SET_PDEATHSIG, SIGTERM);  // never without the launcher
      for (const char* name : {"RANK", "LOCAL_RANK"})
        setenv(name, fmt::format("{}", rank).c_str(), 1);
      for (const char* name : {"WORLD_SIZE", "LOCAL_WORLD_SIZE"})
        setenv(name, std::to_string(ranks).c_str(), 1);
      setenv("MASTER_ADDR", "127.0.0.1", 1);
      setenv("MASTER_PORT", port.c_str(), 1);
      execute("/proc/self/exe", words);
      _exit(127);
    }
  }

  // The exit code of the first that failed: the others are then ended.
  int wait_for_all() {
    using Clock = std::chrono::steady_clock;
    int result = 0;
    Clock::time_point kill_at = Clock::time_point::max();
    while (true) {
      int status;
      for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        auto it = std::find(pids_.begin(), pids_.end(), pid);
        if (it == pids_.end()) continue;
        *it = 0;
        if (status == 0 || result != 0) continue;
        result = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        fmt::print(stderr, "murmur: launch: rank {} {}{}\n", it - pids_.begin(),
                   WIFSIGNALED(status) ? fmt::format("was ended by signal {}", WTERMSIG(status))
                                       : fmt::format("ended with exit code {}", result),
                   pids_.size() > 1 ? "; the others are ended" : "");
        if (kill_at == Clock::time_point::max()) stop(kill_at);
      }
      if (std::all_of(pids_.begin(), pids_.end(), [](pid_t pid) { return pid == 0; }))
        return result;
      if (Clock::now() >= kill_at) tell_all(SIGKILL);
      timespec second{1, 0};
      int signal = sigtimedwait(&signals_, nullptr, &second);
      // Ctrl-C reaches all processes of the terminal by itself.
      if (signal == SIGTERM || signal == SIGHUP) stop(kill_at);
    }
  }

 private:
  void stop(std::chrono::steady_clock::time_point& kill_at) {
    tell_all(SIGTERM);
    kill_at = std::chrono::steady_clock::now() + kTimeToStop;
  }
  void tell_all(int signal) {
    for (pid_t pid : pids_) {
      if (pid > 0) kill(pid, signal);
    }
  }

  sigset_t signals_;
  std::vector<pid_t> pids_;  // by rank; 0: has ended
};

}  // namespace

int launch(int64_t ranks, const std::string& hosts, std::vector<std::string> args) {
  if (ranks < 1 || ranks > 100000)
    throw InputError(fmt::format("launch: -n {}: the number of ranks goes from 1 up", ranks));
  if (args.empty())
    throw InputError("launch: nothing to start; write murmur launch -n 4 -- train ..");
  std::string self = std::filesystem::read_symlink("/proc/self/exe");
  std::string transport = flag(args, "--transport");
  if (transport == "nccl") {
    if (!hosts.empty())
      throw InputError(
          "launch: --hosts works with mpi; for nccl on several hosts use srun or torchrun");
    share_cores(ranks);
    args.insert(args.begin(), self);
    return Children(ranks, args).wait_for_all();
  }
  if (!transport.empty() && transport != "mpi") {
    throw InputError(fmt::format(
        "launch: --transport {} is one process; leave murmur launch out, or use mpi or nccl",
        transport));
  }
  if (!on_path("mpirun"))
    throw InputError("launch: there is no mpirun; install openmpi-bin, or put it on PATH");
  std::vector<std::string> words = {"mpirun",          "-n",        std::to_string(ranks),
                                    "--oversubscribe", "--bind-to", "none"};
  if (!hosts.empty()) {
    if (access(hosts.c_str(), R_OK) != 0)
      throw InputError(fmt::format("launch: --hosts: '{}' cannot be read", hosts));
    words.insert(words.end(), {"--hostfile", hosts});
  } else {
    share_cores(ranks);  // on other hosts each rank does so when it starts
  }
  words.push_back(self);
  words.insert(words.end(), args.begin(), args.end());
  if (transport.empty()) words.insert(words.end(), {"--transport", "mpi"});
  if (geteuid() == 0) {  // in a container
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  }
  std::fflush(nullptr);
  execute("mpirun", words);
  throw Error(fmt::format("launch: mpirun does not start: {}", std::strerror(errno)));
}

}  // namespace murmur
