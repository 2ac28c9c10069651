// dist/launch.cpp - processes with the variables of torchrun; or mpirun, and its end in one line.
#include "dist/launch.h"

#include <arpa/inet.h>
#include <fcntl.h>  // O_CLOEXEC
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <regex>
#include <set>
#include <utility>

#include "dist/bootstrap.h"
#include "tensor/check.h"

namespace murmur {
namespace {

constexpr std::chrono::seconds kTimeToStop(5);  // of a rank, after another one has failed
constexpr int64_t kMostRanks = 4096;            // as --nodes
constexpr int64_t kMostRanksACore = 64;
// What asks for a tidy end. Ranks get SIGUSR2 for it: mpirun, which ends them a second after any of
// the others, passes that one on. SIGUSR1 asks for a checkpoint, and goes through as it is.
constexpr int kSaveAndStop[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR2};

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
  if (ranks > count * kMostRanksACore) {
    throw InputError(fmt::format(
        "launch: -n {}: {} ranks are more than {} cores here can do anything with; at most {}",
        ranks, ranks, count, count * kMostRanksACore));
  }
  setenv("OMP_NUM_THREADS", std::to_string(std::max<int64_t>(1, count / ranks)).c_str(), 0);
}

// Of a process just forked: never without the launcher.
void end_with(pid_t launcher) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != launcher) _exit(1);  // it was the faster
}

// One line of a rank that did not end by itself. The exit code.
int complain_of_signal(const std::string& rank, int signal, bool train) {
  const char* after_progress = isatty(STDERR_FILENO) ? "\n" : "";
  fmt::print(stderr, "{}murmur: launch: {} was ended by signal {}; the others are ended{}\n",
             after_progress, rank, signal,
             train ? "; --resume goes on from the last checkpoint" : "");
  return 1;
}

class Children {
 public:
  Children(int64_t ranks, const std::vector<std::string>& words) : train_(words[1] == "train") {
    // From here on signals wait until wait_for_all() asks for them.
    sigemptyset(&signals_);
    for (int signal : {SIGCHLD, SIGUSR1}) sigaddset(&signals_, signal);
    for (int signal : kSaveAndStop) {
      if (signal != SIGHUP || !ignored(signal)) sigaddset(&signals_, signal);
    }
    sigprocmask(SIG_BLOCK, &signals_, nullptr);
    pid_t launcher = getpid();
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
      end_with(launcher);
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
    int result = 0, interrupts = 0;
    Clock::time_point kill_at = Clock::time_point::max();
    while (true) {
      int status;
      for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        auto it = std::find(pids_.begin(), pids_.end(), pid);
        if (it == pids_.end()) continue;
        *it = 0;
        int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        if (code == 0 || (result != 0 && result != kInterruptedCode)) continue;
        result = code;
        if (code == kInterruptedCode) continue;
        std::string rank = fmt::format("rank {}", it - pids_.begin());
        if (WIFSIGNALED(status)) {
          complain_of_signal(rank, WTERMSIG(status), train_);
        } else {
          fmt::print(stderr, "murmur: launch: {} ended with exit code {}{}\n", rank, code,
                     pids_.size() > 1 ? "; the others are ended" : "");
        }
        tell_all(SIGTERM);
        kill_at = Clock::now() + kTimeToStop;
      }
      if (std::all_of(pids_.begin(), pids_.end(), [](pid_t pid) { return pid == 0; }))
        return result;
      if (Clock::now() >= kill_at) tell_all(SIGKILL);
      timespec second{1, 0};
      int signal = sigtimedwait(&signals_, nullptr, &second);
      if (signal == SIGINT && ++interrupts > 1) {
        tell_all(SIGKILL);
      } else if (signal > 0 && signal != SIGCHLD) {
        tell_all(signal == SIGUSR1 ? SIGUSR1 : SIGUSR2);
      }
    }
  }

 private:
  void tell_all(int signal) {
    for (pid_t pid : pids_) {
      if (pid > 0) kill(pid, signal);
    }
  }

  bool train_;
  sigset_t signals_;
  std::vector<pid_t> pids_;  // by rank; 0: has ended
};

pid_t mpirun_pid = 0;
volatile sig_atomic_t interrupts = 0, stops = false;

// What ranks and mpirun write to stderr, passed on line by line. mpirun frames its own messages
// with lines of dashes. Those about the end of a rank are left out: the rank has said why, or this
// program will. Lost connections wait for the end: after a rank was killed they tell nothing new.
class Stderr {
 public:
  void write(const char* data, size_t size) {
    text_.append(data, size);
    size_t begin = 0;
    for (size_t end; (end = text_.find('\n', begin)) != std::string::npos; begin = end + 1)
      line(text_.substr(begin, end + 1 - begin));
    text_.erase(0, begin);
  }
  void end() {
    if (killed_.empty()) pass_on(connections_);
    pass_on(message_ + text_);
  }
  // Of all ranks that said so; 1 where none did.
  int best_code() const { return codes_.empty() ? 1 : *codes_.begin(); }
  const std::string& killed() const { return killed_; }  // "rank 2"; "" where none was
  int signal() const { return signal_; }                 // that ended it

 private:
  static void pass_on(const std::string& text) { std::fputs(text.c_str(), stderr); }

  void line(const std::string& line) {
    if (line.starts_with("mpirun: Forwarding signal")) return;
    // Nobody asked for that: mpirun ends the others after a rank was killed.
    if (!stops && line.starts_with("murmur: stopping,")) return;
    static const std::regex repeated(
        "more process.* sent help message|base_help_aggregate|PMIX ERROR: BAD-PARAM");
    static const std::regex ended("^murmur: ended with (\\d+)\\s*$");
    std::smatch code;
    if (std::regex_search(line, code, ended)) return void(codes_.insert(std::stoi(code[1])));
    static const std::regex complaint("^murmur: (rank \\d+: )?(.*)");  // of one input, by each rank
    if (std::regex_search(line, code, complaint) && !said_.insert(code[2]).second) return;
    bool frame = line.size() > 60 && line.find_first_not_of("-\n") == std::string::npos;
    if (!frame && message_.empty()) {
      std::regex_search(line, repeated) ? void(connections_ += line) : pass_on(line);
      return;
    }
    bool ends = frame && !message_.empty();
    message_ += line;
    if (ends) message(std::exchange(message_, {}));
  }

  void message(const std::string& text) {
    static const std::regex killed("process (rank \\d+) .* on signal (\\d+)"),
        failed("Primary job +terminated|exited with non-zero status"),
        connection("unexpectedly disconnected|failed to TCP connect");
    std::string line = text;  // Open MPI 5 wraps
    std::replace(line.begin(), line.end(), '\n', ' ');
    std::smatch match;
    if (std::regex_search(line, match, killed)) {
      killed_ = match[1];
      signal_ = std::stoi(match[2]);
    } else if (std::regex_search(line, connection)) {
      connections_ += text;
    } else if (!std::regex_search(line, failed)) {
      pass_on(text);
    }
  }

  std::string text_;     // a line that has not ended
  std::string message_;  // of mpirun, not complete; or ""
  std::string connections_;
  std::string killed_;
  int signal_ = 0;
  std::set<std::string> said_;  // complaints, without who said it
  std::set<int> codes_;         // with which ranks ended, where they tell (kTellsLauncher)
};

void tell_mpirun(int signal) {
  bool save = signal == SIGUSR1;
  if (!save) stops = true;
  if (signal == SIGINT) interrupts = interrupts + 1;
  kill(mpirun_pid, interrupts > 1 ? SIGTERM : save ? SIGUSR1 : SIGUSR2);
}

// Runs mpirun to its end. The exit code: that of the rank that failed, 1 if a signal ended it.
int run_mpirun(const std::vector<std::string>& words, bool train, bool survive) {
  int ends[2];
  check(pipe2(ends, O_CLOEXEC) == 0, "launch: no pipe can be opened");
  pid_t launcher = getpid();
  mpirun_pid = fork();
  if (mpirun_pid == 0) {
    end_with(launcher);
    setpgid(0, 0);  // the terminal's Ctrl-C would reach it too, and it would end all ranks at once
    dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    int old = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    dup2(ends[1], STDERR_FILENO);
    execute("mpirun", words);
    int problem = errno;
    dup2(old, STDERR_FILENO);
    fmt::print(stderr, "murmur: launch: mpirun does not start: {}\n", std::strerror(problem));
    _exit(1);
  }
  check(mpirun_pid > 0, "launch: mpirun does not start");
  close(ends[1]);
  signal(SIGUSR1, tell_mpirun);
  for (int number : kSaveAndStop) {
    if (number != SIGHUP || !ignored(number)) signal(number, tell_mpirun);
  }

  Stderr output;
  int status = 0;
  std::chrono::steady_clock::time_point tell_again;
  for (bool ended = false, open = true; !ended || open;) {
    auto now = std::chrono::steady_clock::now();
    if (stops && interrupts < 2 && now > tell_again) {  // ranks that were not there yet
      kill(mpirun_pid, SIGUSR2);
      tell_again = now + std::chrono::seconds(1);
    }
    ended = ended || waitpid(mpirun_pid, &status, open ? WNOHANG : 0) == mpirun_pid;
    pollfd ready{ends[0], POLLIN, 0};
    char data[4096];
    if (poll(&ready, open, ended ? 0 : 100) > 0) {
      ssize_t size = read(ends[0], data, sizeof data);
      if (size > 0) output.write(data, size_t(size));
      if (size == 0) open = false;
    } else if (ended) {
      break;  // what mpirun has started may still hold the other end
    }
  }
  output.end();
  if (WIFSIGNALED(status)) return complain_of_signal("mpirun", WTERMSIG(status), train);
  if (survive) return output.best_code();  // mpirun's own is always 0
  if (!output.killed().empty()) return complain_of_signal(output.killed(), output.signal(), train);
  return WEXITSTATUS(status);
}

}  // namespace

int launch(int64_t ranks, const std::string& transport, const std::string& hosts, bool survive,
           std::vector<std::string> args) {
  if (ranks < 1 || ranks > kMostRanks) {
    throw InputError(
        fmt::format("launch: -n {}: the number of ranks goes from 1 to {}", ranks, kMostRanks));
  }
  std::string self = std::filesystem::read_symlink("/proc/self/exe");
  if (transport == "nccl") {
    if (survive) throw InputError("launch: --survive works with mpi, not with nccl");
    if (!hosts.empty())
      throw InputError(
          "launch: --hosts works with mpi; for nccl on several hosts use srun or torchrun");
    share_cores(ranks);
    args.insert(args.begin(), self);
    return Children(ranks, args).wait_for_all();
  }
  if (!on_path("mpirun"))
    throw InputError("launch: there is no mpirun; install openmpi-bin, or put it on PATH");
  std::vector<std::string> words = {"mpirun",          "-n",        std::to_string(ranks),
                                    "--oversubscribe", "--bind-to", "none"};
  if (survive) {
    setenv(kTellsLauncher, "1", 1);
    words.insert(words.end(), {"--enable-recovery", "-x", kTellsLauncher});
    // Open MPI 5 would still end all others when one ends with an exit code.
    setenv("PRTE_MCA_state_base_error_non_zero_exit", "0", 1);
  }
  if (!hosts.empty()) {
    if (access(hosts.c_str(), R_OK) != 0)
      throw InputError(fmt::format("launch: --hosts: '{}' cannot be read", hosts));
    words.insert(words.end(), {"--hostfile", hosts});
  } else {
    share_cores(ranks);  // on other hosts each rank does so when it starts
  }
  if (!isatty(STDOUT_FILENO)) {  // to the ranks mpirun's pipes look like terminals
    setenv("TERM", "dumb", 1);
    words.insert(words.end(), {"-x", "TERM"});
  }
  words.push_back(self);
  words.insert(words.end(), args.begin(), args.end());
  if (geteuid() == 0) {  // in a container
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  }
  std::fflush(nullptr);
  int code = run_mpirun(words, args.front() == "train", survive);
  unsetenv(kTellsLauncher);  // this process has nobody to tell
  return code;
}

}  // namespace murmur
