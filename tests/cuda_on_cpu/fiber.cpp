// tests/cuda_on_cpu/fiber.cpp - stacks, and the switch between them in a few instructions.
#include "fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdint>
#include <new>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef __x86_64__
// Saves the registers that a function must keep, swaps stacks, and takes the other's registers.
extern "C" void murmur_swap_stacks(void** save, void* load);
asm(R"(
.text
.globl murmur_swap_stacks
.type murmur_swap_stacks, @function
murmur_swap_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size murmur_swap_stacks, .-murmur_swap_stacks
.section .note.GNU-stack,"",@progbits
.text
)");
#endif

namespace cuda_on_cpu {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr size_t stack_bytes = 1 << 20;  // only touched pages exist; its frames are large
#else
constexpr size_t stack_bytes = 256 << 10;
#endif
constexpr size_t page = 4096;

}  // namespace

Fiber::Fiber() {
  pthread_attr_t attributes;
  void* lowest;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
  pthread_attr_getstack(&attributes, &lowest, &bytes_);
  pthread_attr_destroy(&attributes);
  stack_ = static_cast<char*>(lowest);
}

Fiber::Fiber(void (*entry)(), unsigned stagger) : bytes_(stack_bytes), owned_(true) {
  void* p = mmap(nullptr, page + bytes_, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  mprotect(p, page, PROT_NONE);  // an overflow stops here
  stack_ = static_cast<char*>(p) + page;
  // Stacks begin at different cache lines: at equal ones they would evict each other.
  char* top = stack_ + bytes_ - stagger % 32 * 448;
#ifdef __x86_64__
  void** words = reinterpret_cast<void**>(top) - 1;
  *words = nullptr;  // the return address of entry: none; its stack is aligned as after a call
  *--words = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; saved++) *--words = nullptr;
  top_ = words;
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = size_t(top - stack_);
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#endif
}

Fiber::~Fiber() {
  if (!owned_) return;
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack_, bytes_);  // an abandoned fiber has live frames
#endif
  munmap(stack_ - page, page + bytes_);
}

void Fiber::step(Fiber& from, Fiber& to) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&from.shadow_, to.stack_, to.bytes_);
#endif
#ifdef __x86_64__
  murmur_swap_stacks(&from.top_, to.top_);
#else
  swapcontext(&from.context_, &to.context_);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(from.shadow_, nullptr, nullptr);
#endif
}

void Fiber::entered() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

}  // namespace cuda_on_cpu
