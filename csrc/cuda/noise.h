// noise on a GPU, bit by bit that of noise_ref; and the small steps between it and the networks.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/noise.h"

namespace cgnrt {

constexpr int kMaxDeviceBounds = 64;  // they travel with the launch

struct NoiseDeviceArgs {
  NoiseKind kind;
  std::uint64_t seed;
  const std::int64_t* indices;  // (n)
  std::int64_t n;
  std::uint32_t slot;
  std::int64_t size;          // numbers for each index
  std::int64_t bounds_count;  // 1: one for all; else `size`; of kIntegers only
  std::uint32_t bounds[kMaxDeviceBounds];
  void* out;  // (n, size) uint32, float32, float32 or int32
};

// All enqueue on the current device and do not synchronise. Throw CudaError if a launch fails.
void noise_cuda(const NoiseDeviceArgs& args, cudaStream_t stream);

// out[i] = table[index[i]], rows of `columns` floats; a row that is not there gives NaN.
void gather_rows_cuda(const float* table, std::int64_t rows, std::int64_t columns, const std::int64_t* index,
                      std::int64_t n, float* out, cudaStream_t stream);

// out[i, j] = values[i, j] * factors[i], one rounding; `out` may be `values`.
void scale_rows_cuda(const float* values, const float* factors, std::int64_t n, std::int64_t columns,
                     float* out, cudaStream_t stream);

}  // namespace cgnrt
