// tests/cuda_on_cpu/block.cpp - the schedule: who runs next, who waits for whom, and when nobody
// can.
#include "block.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <utility>

#include "cuda_on_cpu.h"
#include "fiber.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

constinit thread_local uint3 blockIdx = {};
constinit thread_local dim3 blockDim = {}, gridDim = {};

namespace cuda_on_cpu {

constinit thread_local Thread* current = nullptr;
constinit thread_local unsigned char* dynamic_shared = nullptr;
constinit thread_local size_t dynamic_shared_bytes = 0;

namespace {

constexpr unsigned max_threads = 1024, max_warps = max_threads / 32, max_barriers = 16;
constexpr size_t room = max_shared + 1024;  // for dynamic shared memory and what is behind it
constexpr size_t fence_bytes = 256;
constexpr unsigned char fence_byte = 0xa5;

unsigned initial_order() {
  const char* text = std::getenv("MURMUR_CUDA_ORDER");
  return text ? unsigned(std::strtoul(text, nullptr, 10)) : 0;
}
std::atomic<unsigned> thread_order = initial_order();

struct Meeting {
  uint32_t mask, came;
  Work work;
  void* arguments[32];
};

struct Warp {
  uint32_t live;      // lanes that have not ended
  uint32_t runnable;  // of these, those that wait for nothing
  uint32_t started;
  uint32_t polling;  // lanes in wait_until
  std::vector<Meeting> meetings;
};

struct Barrier {
  unsigned came = 0, yes = 0, expected = 0;
  Votes votes = {};  // of the last time it opened
  uint32_t waiting[max_warps] = {};
};

// Everything one OS thread needs to run kernels; kept between launches.
class Scheduler {
 public:
  Scheduler();
  ~Scheduler();
  void run(dim3 blocks, dim3 threads, size_t shared_bytes, const std::function<void()>& body);

  void meet(uint32_t mask, Work work, void* arguments);
  Votes barrier(unsigned id, unsigned threads, bool vote, bool wait);
  void wait_until(bool (*ready)(void*), void* what);

 private:
  static void work_off();  // what a fiber does: one thread after another
  void wait();             // the current thread is not runnable: others run until it is
  void run_block();
  void end_thread();
  Thread* next();
  Thread* next_of(unsigned warp);
  void resume(Thread* thread, Fiber& from);
  void complete(Warp& warp, size_t meeting);
  void open(Barrier& barrier);
  std::string deadlock() const;
  void abandon();
  unsigned random() {  // xorshift
    random_ ^= random_ << 13, random_ ^= random_ >> 17, random_ ^= random_ << 5;
    return random_;
  }

  const std::function<void()>* body_ = nullptr;
  std::unique_ptr<Thread[]> threads_;
  Warp warps_[max_warps];
  Barrier barriers_[max_barriers];
  unsigned warp_count_ = 0, live_ = 0, order_ = 0, random_ = 1;
  std::exception_ptr error_;
  Fiber host_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;  // parked in work_off
  Fiber* active_ = nullptr;   // the one that runs
  unsigned char* shared_;
};
constinit thread_local Scheduler* scheduler = nullptr;

Scheduler::Scheduler() : threads_(new Thread[max_threads]) {
  shared_ = static_cast<unsigned char*>(std::aligned_alloc(1024, room));
  for (unsigned i = 0; i < max_threads; i++) threads_[i].warp = i / 32, threads_[i].lane = i % 32;
}
Scheduler::~Scheduler() { std::free(shared_); }

void Scheduler::run(dim3 blocks, dim3 threads, size_t shared_bytes,
                    const std::function<void()>& body) {
  body_ = &body;
  order_ = thread_order;
  blockDim = threads, gridDim = blocks;
  dynamic_shared = shared_, dynamic_shared_bytes = shared_bytes;
  const unsigned n = threads.x * threads.y * threads.z;
  warp_count_ = (n + 31) / 32;
  for (unsigned i = 0; i < n; i++) {
    threads_[i].index = {i % threads.x, i / threads.x % threads.y, i / (threads.x * threads.y)};
  }
  const uint64_t count = uint64_t(blocks.x) * blocks.y * blocks.z;
  for (uint64_t i = 0; i < count; i++) {
    uint64_t b = order_ % 2 ? count - 1 - i : i;
    blockIdx = {unsigned(b % blocks.x), unsigned(b / blocks.x % blocks.y),
                unsigned(b / (uint64_t(blocks.x) * blocks.y))};
    random_ = (order_ * 2654435761u ^ unsigned(b) * 2246822519u) | 1;
    live_ = n;
    for (unsigned w = 0; w < warp_count_; w++) {
      unsigned lanes = std::min(32u, n - w * 32);
      warps_[w].live = warps_[w].runnable = lanes == 32 ? ~0u : (1u << lanes) - 1;
      warps_[w].started = warps_[w].polling = 0;
    }
    run_block();
  }
}

void Scheduler::run_block() {
  const size_t bytes = dynamic_shared_bytes;
  if (bytes) std::memset(shared_, 0xff, bytes);  // reads as NaN
  std::memset(shared_ + bytes, fence_byte, fence_bytes);
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(shared_ + bytes, room - bytes);
#endif
  current = &threads_[0];  // where next() begins to look
  resume(next(), host_);
  current = nullptr;
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(shared_ + bytes, room - bytes);
#endif
  if (error_) {
    abandon();
    end_block(false);
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
  end_block(true);
  for (size_t i = 0; i < fence_bytes; i++) {
    if (shared_[bytes + i] != fence_byte) {
      fail("wrote behind the " + std::to_string(bytes) + " bytes of dynamic shared memory");
    }
  }
}

// Forgets a block that cannot go on. Its threads are not unwound.
void Scheduler::abandon() {
  fibers_.clear(), idle_.clear();
  for (Warp& w : warps_) w.meetings.clear();
  for (Barrier& b : barriers_) b = {};
  for (unsigned i = 0; i < max_threads; i++) threads_[i].copies.clear();
}

void Scheduler::work_off() {
  Fiber::entered();
  Scheduler& s = *scheduler;
  for (;;) {
    Fiber* self = s.active_;
    Thread* following = nullptr;
    try {
      do {
        Warp& warp = s.warps_[current->warp];
        warp.started |= 1u << current->lane;
        (*s.body_)();
        s.end_thread();
        following = s.live_ ? s.next() : nullptr;
        if (following && !(s.warps_[following->warp].started >> following->lane & 1)) {
          current = following;  // on this same stack
        } else {
          break;
        }
      } while (true);
      if (s.live_ && !following) s.error_ = std::make_exception_ptr(Error(s.deadlock()));
    } catch (...) {
      s.error_ = std::current_exception();
    }
    s.idle_.push_back(self);
    if (following && !s.error_) {
      s.resume(following, *self);
    } else {
      Fiber::step(*self, s.host_);
    }
  }
}

// Steps from a fiber to that of a thread, or to a fresh one.
void Scheduler::resume(Thread* thread, Fiber& from) {
  current = thread;
  if (warps_[thread->warp].started >> thread->lane & 1) {
    active_ = thread->fiber;
  } else if (!idle_.empty()) {
    active_ = idle_.back();
    idle_.pop_back();
  } else {
    fibers_.push_back(std::make_unique<Fiber>(work_off, unsigned(fibers_.size())));
    active_ = fibers_.back().get();
  }
  Fiber::step(from, *active_);
}

void Scheduler::wait() {
  Thread* self = current;
  Thread* following = next();
  if (following == self) return;
  if (!following) throw Error(deadlock());
  self->fiber = active_;
  resume(following, *self->fiber);
  // Resumed: whoever did it has set current and active_.
}

void Scheduler::end_thread() {
  Warp& warp = warps_[current->warp];
  const uint32_t bit = 1u << current->lane;
  warp.live &= ~bit, warp.runnable &= ~bit;
  live_--;
  current->copies.clear();
  // Those who wait do not wait for a thread that has ended.
  for (size_t i = 0; i < warp.meetings.size(); i++) {
    const Meeting& m = warp.meetings[i];
    if ((m.mask & bit) && m.came == (m.mask & warp.live)) complete(warp, i--);
  }
  Barrier& b = barriers_[0];
  if (b.came && !b.expected && b.came == live_) open(b);
}

// The thread to run now: of the current warp while that has any.
Thread* Scheduler::next() {
  unsigned first = current->warp;
  if (Thread* thread = next_of(first)) return thread;
  if (order_) {
    first = random() % warp_count_;
    if (random() % 4 == 0) deliver_tile(random());
  }
  do {
    for (unsigned i = 1; i <= warp_count_; i++) {
      if (Thread* thread = next_of((first + i) % warp_count_)) return thread;
    }
  } while (deliver_tile(order_ ? random() : 0));  // as late as can be
  return nullptr;
}

Thread* Scheduler::next_of(unsigned w) {
  Warp& warp = warps_[w];
  if (!warp.runnable) {
    for (uint32_t rest = warp.polling; rest; rest &= rest - 1) {
      unsigned lane = unsigned(std::countr_zero(rest));
      Thread& thread = threads_[w * 32 + lane];
      if (!thread.ready(thread.what)) continue;
      warp.polling &= ~(1u << lane), warp.runnable |= 1u << lane;
    }
    if (!warp.runnable) return nullptr;
  }
  unsigned turn = order_ ? random() % 32 : 0;
  unsigned lane = (unsigned(std::countr_zero(std::rotr(warp.runnable, int(turn)))) + turn) % 32;
  return &threads_[w * 32 + lane];
}

void Scheduler::meet(uint32_t mask, Work work, void* arguments) {
  Warp& warp = warps_[current->warp];
  const uint32_t bit = 1u << current->lane;
  if (!(mask & bit)) fail("a lane is not in the mask it gives");
  size_t i = 0;
  while (i < warp.meetings.size() && warp.meetings[i].mask != mask) i++;
  if (i == warp.meetings.size()) warp.meetings.push_back({mask, 0, work, {}});
  Meeting& m = warp.meetings[i];
  if (m.work != work) fail("lanes of one warp meet in different instructions");
  m.arguments[current->lane] = arguments;
  m.came |= bit;
  if (m.came == (mask & warp.live)) {
    complete(warp, i);
  } else {
    warp.runnable &= ~bit;
    wait();
  }
}

void Scheduler::wait_until(bool (*ready)(void*), void* what) {
  current->ready = ready, current->what = what;
  const uint32_t bit = 1u << current->lane;
  warps_[current->warp].polling |= bit, warps_[current->warp].runnable &= ~bit;
  wait();
}

void Scheduler::complete(Warp& warp, size_t i) {
  Meeting& m = warp.meetings[i];
  uint32_t came = m.came;
  m.work(m.arguments, came);
  if (i + 1 < warp.meetings.size()) m = warp.meetings.back();
  warp.meetings.pop_back();
  warp.runnable |= came;
}

Votes Scheduler::barrier(unsigned id, unsigned threads, bool vote, bool must_wait) {
  if (id >= max_barriers) fail("a block has 16 barriers");
  Barrier& b = barriers_[id];
  if (b.came && b.expected != threads) fail("threads disagree on a barrier's count");
  b.expected = threads;
  b.came++, b.yes += vote;
  bool last = b.came == (threads ? threads : live_);
  if (must_wait && !last) {
    const uint32_t bit = 1u << current->lane;
    b.waiting[current->warp] |= bit;
    warps_[current->warp].runnable &= ~bit;
    wait();
  }
  if (last) open(b);
  return b.votes;
}

void Scheduler::open(Barrier& b) {
  b.votes = {b.yes, b.came};
  b.came = b.yes = 0;
  for (unsigned w = 0; w < warp_count_; w++) {
    warps_[w].runnable |= std::exchange(b.waiting[w], 0);
  }
}

std::string Scheduler::deadlock() const {
  std::string text = "deadlock in block (" + std::to_string(blockIdx.x) + ", " +
                     std::to_string(blockIdx.y) + ", " + std::to_string(blockIdx.z) + "):";
  for (unsigned i = 0; i < max_barriers; i++) {
    const Barrier& b = barriers_[i];
    if (!b.came) continue;
    text += " " + std::to_string(b.came) + " of " +
            std::to_string(b.expected ? b.expected : live_) + " threads are at barrier " +
            std::to_string(i) + ";";
  }
  for (unsigned w = 0; w < warp_count_; w++) {
    for (const Meeting& m : warps_[w].meetings) {
      char lanes[64];
      std::snprintf(lanes, sizeof lanes, "%08x of %08x", m.came, m.mask & warps_[w].live);
      text += " warp " + std::to_string(w) + " waits for lanes, " + lanes + " came;";
    }
    if (warps_[w].polling) text += " warp " + std::to_string(w) + " polls in vain;";
  }
  return text;
}

}  // namespace

unsigned set_order(unsigned order) { return thread_order.exchange(order); }

void fail(const std::string& what) {
  std::string text = what;
  if (current) {
    auto name = [](uint3 v) {
      return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) +
             ")";
    };
    text += " [block " + name(blockIdx) + ", thread " + name(current->index) + "]";
  }
  throw Error(text);
}

void meet(uint32_t mask, Work work, void* arguments) { scheduler->meet(mask, work, arguments); }
Votes barrier(unsigned id, unsigned threads, bool vote) {
  return scheduler->barrier(id, threads, vote, true);
}
void barrier_arrive(unsigned id, unsigned threads) {
  scheduler->barrier(id, threads, false, false);
}
void wait_until(bool (*ready)(void*), void* what) {
  if (ready(what)) return;
  scheduler->wait_until(ready, what);
}

void run_kernel(dim3 blocks, dim3 threads, size_t shared_bytes, const std::function<void()>& body) {
  static thread_local std::unique_ptr<Scheduler> own;
  if (!own) own = std::make_unique<Scheduler>();
  if (current) fail("a kernel launches a kernel");
  scheduler = own.get();
  scheduler->run(blocks, threads, shared_bytes, body);
}

void AsyncCopies::start(void* to, const void* from) {
  std::memset(to, 0xff, 16);
  copies.push_back({to, from});
}

void AsyncCopies::wait(size_t may_remain) {
  for (; groups.size() - first_group > may_remain; first_group++) {
    for (; first_copy < groups[first_group]; first_copy++) {
      const Copy& copy = copies[first_copy];
      if (copy.from) {
        std::memcpy(copy.to, copy.from, 16);
      } else {
        std::memset(copy.to, 0, 16);
      }
    }
  }
  if (first_copy == copies.size() && first_group == groups.size()) clear();
}

}  // namespace cuda_on_cpu
