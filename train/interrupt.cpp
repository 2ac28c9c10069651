// train/interrupt.cpp - a signal handler that only sets a flag, on a stack of its own.
//
// The own stack is not a luxury: inside its matmuls oneDNN points the stack register into the
// middle of the heap, and a handler on that stack would write over whatever lies before it.
#include "train/interrupt.h"

#include <signal.h>  // sigaction, sigaltstack

namespace murmur {
namespace {

volatile sig_atomic_t caught = 0;
alignas(64) char handler_stack[1 << 16];  // a frame with all vector and tile registers is 12 KiB

void on_each(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void on_signal(int) {
  caught = 1;
  on_each(SIG_DFL);  // a second one ends the program at once
}

}  // namespace

void catch_interrupts() {
  caught = 0;
  stack_t own{};
  own.ss_sp = handler_stack;
  own.ss_size = sizeof handler_stack;
  sigaltstack(&own, nullptr);
  on_each(on_signal);
}

bool interrupted() { return caught != 0; }

}  // namespace murmur
