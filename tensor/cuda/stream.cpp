// tensor/cuda/stream.cpp - work in order: waiting for it, reading a number later, capturing a step.
#include <memory>
#include <vector>

#include "tensor/backend.h"
#include "tensor/cuda/cuda_backend.h"
#include "tensor/cuda/runtime.h"
#include "tensor/elementwise.h"
#include "tensor/ops/functions.h"

namespace murmur::cuda {

namespace {

// A page-locked double and the event that says it has arrived. Used again when nobody asks any
// more.
struct Mailbox {
  double* number = nullptr;
  cudaEvent_t arrived = {};
};
std::vector<Mailbox>& free_mailboxes() {
  static auto* all = new std::vector<Mailbox>;
  return *all;
}

std::shared_ptr<Mailbox> take_mailbox() {
  Mailbox box;
  if (auto& free = free_mailboxes(); !free.empty()) {
    box = free.back();
    free.pop_back();
  } else {
    check_call(cudaMallocHost(reinterpret_cast<void**>(&box.number), sizeof(double)),
               "cudaMallocHost");
    check_call(cudaEventCreateWithFlags(&box.arrived, cudaEventDisableTiming), "cudaEventCreate");
  }
  return {new Mailbox(box), [](Mailbox* used) {
            free_mailboxes().push_back(*used);
            delete used;
          }};
}

// A captured step, and the memory it works in: that stays its own while the graph lives.
struct Graph {
  cudaGraphExec_t executable = {};
  std::shared_ptr<void> memory;
  int64_t launches = 0;
  ~Graph() {
    cudaStreamSynchronize(stream());
    if (executable) cudaGraphExecDestroy(executable);
  }
};

}  // namespace

void CudaBackend::synchronize() const {
  check_call(cudaStreamSynchronize(stream()), "cudaStreamSynchronize");
  counters().waits++;
}

std::function<double()> CudaBackend::read_later(const Tensor& x) const {
  check(x.numel() == 1, [&] { return "read_later: " + text(x) + " has more than one element"; });
  Tensor wide(x.shape(), DType::f64, Device::cuda);
  copy(x, wide);
  std::shared_ptr<Mailbox> box = take_mailbox();
  check_call(
      cudaMemcpyAsync(box->number, wide.raw(), sizeof(double), cudaMemcpyDeviceToHost, stream()),
      "cudaMemcpyAsync");
  check_call(cudaEventRecord(box->arrived, stream()), "cudaEventRecord");
  return [box] {
    check_call(cudaEventSynchronize(box->arrived), "cudaEventSynchronize");
    return *box->number;
  };
}

std::function<void()> CudaBackend::capture(const std::function<void()>& work) const {
  auto graph = std::make_shared<Graph>();
  int64_t before = counters().launches;
  PrivateMemory memory(Device::cuda);
  check_call(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed),
             "cudaStreamBeginCapture");
  cudaGraph_t recorded = {};
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream(), &recorded);
    if (recorded) cudaGraphDestroy(recorded);
    throw;
  }
  check_call(cudaStreamEndCapture(stream(), &recorded), "cudaStreamEndCapture");
  check_call(cudaGraphInstantiate(&graph->executable, recorded, 0), "cudaGraphInstantiate");
  check_call(cudaGraphDestroy(recorded), "cudaGraphDestroy");
  graph->memory = memory.keep();
  graph->launches = counters().launches - before;
  counters().launches = before;
  return [graph] {
    check_call(cudaGraphLaunch(graph->executable, stream()), "cudaGraphLaunch");
    counters().launches++;
  };
}

#define UNARY(name, Functor, low, high, summary) \
  namespace unary_kernels {                      \
  extern const UnaryFunction::Kernels name;      \
  }
#define BINARY(name, Functor, low, high, summary) \
  namespace binary_kernels {                      \
  extern const BinaryFunction::Kernels name;      \
  }
#define FUNCTION(name, summary)
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
#undef FUNCTION

}  // namespace murmur::cuda

namespace murmur {

const Backend* cuda_backend() {
  static const cuda::CudaBackend backend;
  static const bool found = [] {
#define OP(name) ops::name.set_cuda(cuda::name);
#include "declared_ops.def"
#define UNARY(name, Functor, low, high, summary) \
  unary::name.function->cuda = cuda::unary_kernels::name;
#define BINARY(name, Functor, low, high, summary) \
  binary::name.function->cuda = cuda::binary_kernels::name;
#define FUNCTION(name, summary)
#include "tensor/ops/ops.def"
#undef UNARY
#undef BINARY
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  }();
  return found ? &backend : nullptr;
}

void* cuda_stream() { return cuda::stream(); }

}  // namespace murmur
