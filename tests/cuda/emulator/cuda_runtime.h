// What nvcc gives to kernels, on the host. See README.md.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <type_traits>

#include "cuda_runtime_api.h"

#define __global__
#define __device__ static
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define __forceinline__ inline

struct uint3 {
  unsigned x, y, z;
};
// Of the fibre that runs.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace emulator {

void* dynamic_shared();
void block_barrier();
// Every live thread of the mask gives a value and gets that of lane `from` (its own if `from` is not in
// 0..31).
std::uint64_t exchange(unsigned mask, std::uint64_t value, int from);
unsigned ballot(unsigned mask, bool predicate);
int lane();
void launch(dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream, std::function<void()> body);
cudaError_t check_launch(dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream);

template <typename T>
T exchange_value(unsigned mask, T value, int from) {
  static_assert(sizeof(T) <= 8, "a shuffle moves up to 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(mask, bits, from);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace emulator

constexpr int warpSize = 32;

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline void __syncthreads() { ::emulator::block_barrier(); }
inline int __syncthreads_or(int predicate) {
  static int any;
  any = 0;
  ::emulator::block_barrier();
  any |= predicate;
  ::emulator::block_barrier();
  const int found = any;
  ::emulator::block_barrier();  // nobody clears it before all have read it
  return found;
}
inline void __syncwarp(unsigned mask = 0xffffffffu) { ::emulator::ballot(mask, true); }
inline void __threadfence() {}
template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  return ::emulator::exchange_value(mask, value, (::emulator::lane() & ~(width - 1)) + (from & (width - 1)));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int with, int = 32) {
  return ::emulator::exchange_value(mask, value, ::emulator::lane() ^ with);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const int lane = ::emulator::lane();
  const int from = lane - static_cast<int>(by);
  return ::emulator::exchange_value(mask, value, from < (lane & ~(width - 1)) ? lane : from);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const int lane = ::emulator::lane();
  const int from = lane + static_cast<int>(by);
  return ::emulator::exchange_value(mask, value, from > (lane | (width - 1)) ? lane : from);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return ::emulator::ballot(mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate) { return ::emulator::ballot(mask, predicate != 0) != 0; }
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value)); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(a) * b) >> 32);
}

template <typename T>
T __ldg(const T* from) {
  return *from;
}
template <typename T>
T __ldcs(const T* from) {
  return *from;
}
template <typename T>
T __ldca(const T* from) {
  return *from;
}
template <typename T>
void __stcs(T* to, T value) {
  *to = value;
}

// One thread of the host runs all fibres.
template <typename T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to = static_cast<T>(before + value);
  return before;
}
template <typename T>
T atomicMax(T* to, T value) {
  const T before = *to;
  if (value > before) *to = value;
  return before;
}
template <typename T>
T atomicOr(T* to, T value) {
  const T before = *to;
  *to = before | value;
  return before;
}

// In C++17 constant-size template arguments keep `min` and `max` of mixed kinds out, as nvcc's overloads
// would.
template <typename T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

struct cudaLaunchAttribute {};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

template <typename... P, typename... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...), A&&... arguments) {
  const cudaError_t status =
      emulator::check_launch(config->gridDim, config->blockDim, config->dynamicSmemBytes, config->stream);
  if (status != cudaSuccess) return status;
  emulator::launch(config->gridDim, config->blockDim, config->dynamicSmemBytes, config->stream,
                   std::bind(kernel, static_cast<std::decay_t<P>>(arguments)...));
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int, std::size_t) {
  *blocks = 2;
  return cudaSuccess;
}
