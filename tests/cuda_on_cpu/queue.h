// tests/cuda_on_cpu/queue.h - what the files of the host side tell each other.
#pragma once

#include <functional>

#include "host_side.h"

namespace cuda_on_cpu {

// Does `work` on a stream: at once, or later, or once for every launch of the graph that is being
// captured.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);
bool is_capturing(cudaStream_t stream);

void finish(cudaStream_t stream);  // all that was queued; nullptr: on every stream

// Whether a capture forbids a call that would allocate or wait. Such a call spoils the capture.
enum class Call { allocates, waits };
bool forbidden(Call call);

cudaError_t remember(cudaError_t status);  // for cudaGetLastError

bool is_late();
bool is_dry();

}  // namespace cuda_on_cpu
