// Between the runtime's queues and the kernels' fibres.
#pragma once

#include <functional>

#include "cuda_runtime_api.h"

namespace emulator {

void enqueue(cudaStream_t stream, std::function<void()> run);
bool runs_on_current_device(cudaStream_t stream);

// Whether a kernel failed since it was asked last.
bool take_failure();

}  // namespace emulator
