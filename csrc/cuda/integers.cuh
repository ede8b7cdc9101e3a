// Integers in kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace cgnrt {

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
