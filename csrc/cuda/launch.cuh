// What every kernel needs: launching it (the configuration is explicit, the status is checked, nothing is
// synchronised), loops over a grid, and integers.
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

// How many blocks of `threads` threads fill the current device, at most one for each piece of work.
inline unsigned persistent_blocks(std::int64_t work, int threads) {
  int device = 0, processors = 0, resident = 0;
  CGNRT_CUDA_CHECK(cudaGetDevice(&device));
  CGNRT_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  CGNRT_CUDA_CHECK(cudaDeviceGetAttribute(&resident, cudaDevAttrMaxThreadsPerMultiProcessor, device));
  const std::int64_t blocks = static_cast<std::int64_t>(processors) * (resident / threads);
  return static_cast<unsigned>(work < 1 ? 1 : work < blocks ? work : blocks);
}

inline bool is_aligned(const void* memory, std::int64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(memory) % static_cast<std::uintptr_t>(bytes) == 0;
}

// A kernel whose threads each do one piece of work after the other.
constexpr int kLoopThreads = 256;
constexpr std::int64_t kLoopWaves = 16;  // times the blocks that fill the device, at most

inline dim3 loop_blocks(std::int64_t work) {
  const std::int64_t blocks = (work + kLoopThreads - 1) / kLoopThreads;
  const std::int64_t most = kLoopWaves * persistent_blocks(blocks, kLoopThreads);
  return dim3(static_cast<unsigned>(blocks < most ? blocks : most));
}

__device__ __forceinline__ std::int64_t loop_first() {
  return std::int64_t{blockIdx.x} * kLoopThreads + threadIdx.x;
}
__device__ __forceinline__ std::int64_t loop_step() { return std::int64_t{gridDim.x} * kLoopThreads; }

// a / b of numbers >= 0: one of 32 bits, where they fit, takes a fraction of the instructions.
__device__ __forceinline__ std::int64_t quotient(std::int64_t a, std::int64_t b) {
  if ((a | b) >> 32 == 0) return static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b);
  return a / b;
}

// Number `at` of int32 or, if wide, int64 data.
__device__ __forceinline__ std::int64_t integer_of(const void* data, bool is_wide, std::int64_t at) {
  if (is_wide) return static_cast<const std::int64_t*>(data)[at];
  return static_cast<const std::int32_t*>(data)[at];
}

}  // namespace cgnrt

// CGNRT_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)
#define CGNRT_LAUNCH(kernel, ...) ::cgnrt::launch(__FILE__, __LINE__, #kernel, kernel, __VA_ARGS__)
