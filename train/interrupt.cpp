// train/interrupt.cpp - a signal handler that only sets a flag and says so.
#include "train/interrupt.h"

#include <signal.h>  // sigaction
#include <unistd.h>  // write, isatty

#include <cerrno>
#include <chrono>
#include <string_view>

#include "dist/bootstrap.h"
#include "tensor/check.h"  // InputError

namespace murmur {
namespace {

const auto program_start = std::chrono::steady_clock::now();
volatile sig_atomic_t caught = 0, asked_to_save = 0;
std::string_view acknowledgement;  // behind the live line of a terminal

void handle(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(signal, &action, nullptr);
}

void on_save(int) { asked_to_save = asked_to_save + 1; }

void on_stop(int signal) {
  if (signal == SIGINT) handle(SIGINT, SIG_DFL);
  if (caught) return;
  caught = 1;
  int error = errno;
  [[maybe_unused]] ssize_t written =
      ::write(STDERR_FILENO, acknowledgement.data(), acknowledgement.size());
  errno = error;
}

// Of several processes one speaks.
bool speaks() {
  try {
    return launched_by().rank == 0;
  } catch (const InputError&) {
    return true;
  }
}

}  // namespace

void catch_interrupts() {
  caught = 0;
  asked_to_save = 0;
  acknowledgement = "\nmurmur: stopping, after a checkpoint; Ctrl-C again ends at once\n";
  if (!isatty(STDERR_FILENO)) acknowledgement.remove_prefix(1);
  if (!speaks()) acknowledgement = {};
  for (int signal : {SIGINT, SIGTERM, SIGUSR2}) handle(signal, on_stop);
  if (!ignored(SIGHUP)) handle(SIGHUP, on_stop);
  handle(SIGUSR1, on_save);
}

bool interrupted() { return caught != 0; }
int saves_asked() { return asked_to_save; }

double seconds_since_start() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - program_start).count();
}

}  // namespace murmur
