// tests/cuda_on_cpu/fiber.h - a stack to run on, and the step from one to another.
#pragma once

#include <cstddef>
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace cuda_on_cpu {

class Fiber {
 public:
  Fiber();                                   // the stack this OS thread already runs on
  Fiber(void (*entry)(), unsigned stagger);  // a new stack; entry must not return
  ~Fiber();
  Fiber(const Fiber&) = delete;

  // Leaves `from`, which must be the one that runs, and goes on in `to` where it was left.
  static void step(Fiber& from, Fiber& to);
  // What entry must call first.
  static void entered();

 private:
#ifdef __x86_64__
  void* top_ = nullptr;  // where the saved registers lie
#else
  ucontext_t context_;
#endif
  char* stack_ = nullptr;  // lowest usable address
  size_t bytes_ = 0;
  bool owned_ = false;
  [[maybe_unused]] void* shadow_ = nullptr;  // the address sanitizer's own
};

}  // namespace cuda_on_cpu
