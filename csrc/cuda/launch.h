// Launching kernels: the configuration is explicit, the status is checked, nothing is synchronised.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/check.h"

// Dynamic shared memory of a kernel, aligned to 16 bytes.
#if defined(CGNRT_CUDA_EMULATED)
#define CGNRT_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(::emulator::dynamic_shared())
#else
#define CGNRT_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char cgnrt_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(cgnrt_dynamic_shared)
#endif

namespace cgnrt {

template <typename... P, typename... A>
void launch(const char* file, int line, const char* name, void (*kernel)(P...), dim3 grid, dim3 block,
            std::size_t shared_bytes, cudaStream_t stream, A&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  cuda_check(cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...), name, file, line);
}

// How many blocks of `threads` threads fill the current device, and no more than there is work for.
inline unsigned persistent_blocks(std::int64_t work, int threads) {
  int device = 0, processors = 0, resident = 0;
  CGNRT_CUDA_CHECK(cudaGetDevice(&device));
  CGNRT_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  CGNRT_CUDA_CHECK(cudaDeviceGetAttribute(&resident, cudaDevAttrMaxThreadsPerMultiProcessor, device));
  const std::int64_t blocks = static_cast<std::int64_t>(processors) * (resident / threads);
  return static_cast<unsigned>(work < 1 ? 1 : work < blocks ? work : blocks);
}

}  // namespace cgnrt

// CGNRT_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)
#define CGNRT_LAUNCH(kernel, ...) ::cgnrt::launch(__FILE__, __LINE__, #kernel, kernel, __VA_ARGS__)
