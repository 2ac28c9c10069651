// tests/cuda_on_cpu/streams.cpp - streams, events and graphs.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "cuda_on_cpu.h"
#include "queue.h"

namespace {

using Work = std::function<void()>;
using Nodes = std::vector<Work>;
struct Item {
  Work work;
  std::function<bool()> ready = {};  // empty: always
};
using Clock = std::chrono::steady_clock;

struct Capture {
  cudaStream_t origin;
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  Nodes nodes;
  bool invalid = false;
};

// An event outlives its handle while queues hold it.
struct EventState {
  cudaStream_t stream = nullptr;  // where it was recorded last
  std::atomic<uint64_t> recorded = 0, reached = 0;
  Clock::time_point time = {};
  std::shared_ptr<Capture> capture;
};

}  // namespace

struct CUstream_st {
  unsigned flags = 0;
  std::shared_ptr<Capture> capture;
  std::deque<Item> queue;
};
struct CUevent_st {
  std::shared_ptr<EventState> state = std::make_shared<EventState>();
  unsigned flags = 0;
};
struct CUgraph_st {
  std::shared_ptr<const Nodes> nodes;
};
struct CUgraphExec_st {
  std::shared_ptr<const Nodes> nodes;
};

namespace cuda_on_cpu {
namespace {

bool environment(const char* name) {
  const char* text = std::getenv(name);
  return text && *text && *text != '0';
}
std::atomic<bool> late = environment("MURMUR_CUDA_LATE"), dry = environment("MURMUR_CUDA_DRY");

std::mutex mutex;  // of the two lists
std::vector<cudaStream_t> streams;
std::vector<std::shared_ptr<Capture>> captures;

thread_local cudaError_t last_error = cudaSuccess;

bool held(cudaStream_t stream) {
  const Item& first = stream->queue.front();
  return first.ready && !first.ready();
}

void run_first(cudaStream_t stream) {
  while (held(stream)) std::this_thread::yield();
  Work work = std::move(stream->queue.front().work);
  stream->queue.pop_front();
  work();
}

void reach(EventState& event, uint64_t record, bool wait = true) {
  while (event.reached < record && event.stream && !event.stream->queue.empty()) {
    if (!wait && held(event.stream)) return;
    run_first(event.stream);
  }
}

void run_what_is_ready(cudaStream_t stream) {
  while (!stream->queue.empty() && !held(stream)) run_first(stream);
}

}  // namespace

bool set_late(bool value) { return late.exchange(value); }
bool set_dry(bool value) { return dry.exchange(value); }
bool is_late() { return late; }
bool is_dry() { return dry; }

cudaError_t remember(cudaError_t status) {
  if (status != cudaSuccess) last_error = status;
  return status;
}

bool is_capturing(cudaStream_t stream) { return stream && stream->capture; }

cudaError_t enqueue(cudaStream_t stream, Work work) {
  if (!stream) {  // the default stream waits for the others
    if (forbidden(Call::waits)) return remember(cudaErrorStreamCaptureUnsupported);
    finish(nullptr);
    work();
  } else if (stream->capture) {
    if (stream->capture->invalid) return remember(cudaErrorStreamCaptureInvalidated);
    stream->capture->nodes.push_back(std::move(work));
  } else {
    if (!late) run_what_is_ready(stream);  // what was queued while late, or held
    if (!late && stream->queue.empty()) {
      work();
    } else {
      stream->queue.push_back({std::move(work)});
    }
  }
  return cudaSuccess;
}

void hold(cudaStream_t stream, std::function<bool()> ready) {
  stream->queue.push_back({[] {}, std::move(ready)});
}

void finish(cudaStream_t stream) {
  if (stream) {
    while (!stream->queue.empty()) run_first(stream);
    return;
  }
  std::vector<cudaStream_t> all;
  {
    std::lock_guard lock(mutex);
    all = streams;
  }
  for (cudaStream_t each : all) finish(each);
}

bool forbidden(Call call) {
  std::lock_guard lock(mutex);
  bool found = false;
  for (const auto& capture : captures) {
    const bool mine = capture->thread == std::this_thread::get_id();
    if (call == Call::waits ? !mine && capture->mode != cudaStreamCaptureModeGlobal
                            : capture->mode == cudaStreamCaptureModeRelaxed ||
                                  (capture->mode == cudaStreamCaptureModeThreadLocal && !mine)) {
      continue;
    }
    capture->invalid = found = true;
  }
  return found;
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaDeviceSynchronize() {
  if (forbidden(Call::waits)) return remember(cudaErrorStreamCaptureUnsupported);
  finish(nullptr);
  return cudaSuccess;
}

// streams -----------------------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  *stream = new CUstream_st;
  (*stream)->flags = flags;
  std::lock_guard lock(mutex);
  streams.push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, 0); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!stream) return remember(cudaErrorInvalidResourceHandle);
  if (stream->capture) return remember(cudaErrorStreamCaptureUnsupported);
  finish(stream);
  {
    std::lock_guard lock(mutex);
    std::erase(streams, stream);
  }
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (!stream) return cudaDeviceSynchronize();
  if (stream->capture) {
    stream->capture->invalid = true;
    return remember(cudaErrorStreamCaptureUnsupported);
  }
  finish(stream);
  return cudaSuccess;
}

// "Not yet" the first time, so that a caller who does not ask is found out, and then done.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (stream && stream->capture) {
    stream->capture->invalid = true;
    return remember(cudaErrorStreamCaptureUnsupported);
  }
  const bool done = !stream || stream->queue.empty();
  stream ? run_what_is_ready(stream) : finish(stream);
  return done ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data) {
  return enqueue(stream, [=] { function(data); });
}

// events ------------------------------------------------------------------------------------------

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new CUevent_st;
  (*event)->flags = flags;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  if (!event) return remember(cudaErrorInvalidResourceHandle);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  std::shared_ptr<EventState> state = event->state;
  state->stream = stream;
  state->capture = stream ? stream->capture : nullptr;
  if (state->capture) return cudaSuccess;
  const uint64_t record = ++state->recorded;
  return enqueue(stream, [state, record] {
    state->time = Clock::now();
    state->reached = record;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  std::shared_ptr<EventState> state = event->state;
  if (!stream) return cudaEventSynchronize(event);
  if (state->capture) {  // the stream takes part in the capture from now on
    if (stream->capture && stream->capture != state->capture) {
      return remember(cudaErrorStreamCaptureIsolation);
    }
    stream->capture = state->capture;
    return cudaSuccess;
  }
  if (stream->capture) return remember(cudaErrorStreamCaptureIsolation);
  const uint64_t record = state->recorded;
  return enqueue(stream, [state, record] { reach(*state, record); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->state->capture) return remember(cudaErrorCapturedEvent);
  reach(*event->state, event->state->recorded);
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (event->state->capture) return remember(cudaErrorCapturedEvent);
  const bool done = event->state->reached == event->state->recorded;
  reach(*event->state, event->state->recorded, false);
  return done ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  for (cudaEvent_t event : {start, end}) {
    if (event->flags & cudaEventDisableTiming || !event->state->recorded || event->state->capture) {
      return remember(cudaErrorInvalidResourceHandle);
    }
    if (event->state->reached != event->state->recorded) return cudaErrorNotReady;
  }
  *milliseconds =
      std::chrono::duration<float, std::milli>(end->state->time - start->state->time).count();
  return cudaSuccess;
}

// graphs ------------------------------------------------------------------------------------------

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (!stream) return remember(cudaErrorStreamCaptureUnsupported);
  if (stream->capture) return remember(cudaErrorIllegalState);
  stream->capture =
      std::make_shared<Capture>(Capture{stream, mode, std::this_thread::get_id(), {}});
  std::lock_guard lock(mutex);
  captures.push_back(stream->capture);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!stream || !stream->capture) return remember(cudaErrorIllegalState);
  std::shared_ptr<Capture> capture = stream->capture;
  if (capture->origin != stream) return remember(cudaErrorStreamCaptureUnmatched);
  std::lock_guard lock(mutex);
  std::erase(captures, capture);
  for (cudaStream_t each : streams) {
    if (each->capture == capture) each->capture = nullptr;
  }
  if (capture->invalid) return remember(cudaErrorStreamCaptureInvalidated);
  *graph = new CUgraph_st{std::make_shared<const Nodes>(std::move(capture->nodes))};
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = !is_capturing(stream)      ? cudaStreamCaptureStatusNone
            : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                       : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  if (!graph) return remember(cudaErrorInvalidValue);
  *exec = new CUgraphExec_st{graph->nodes};
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  if (!graph) return remember(cudaErrorInvalidValue);
  if (nodes) return remember(cudaErrorNotSupported);
  *count = graph->nodes->size();
  return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  if (!exec) return remember(cudaErrorInvalidValue);
  return enqueue(stream, [nodes = exec->nodes] {
    for (const Work& work : *nodes) work();
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
