// The small steps on rows between the noise and the networks, on a GPU. All enqueue on the current device and
// do not synchronise. Throw CudaError if a launch fails.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace cgnrt {

// out[i] = table[index[i]], rows of `columns` floats; a row that does not exist gives NaN.
void gather_rows_cuda(const float* table, std::int64_t rows, std::int64_t columns, const std::int64_t* index,
                      std::int64_t n, float* out, cudaStream_t stream);

// out[i, j] = values[i, j] * factors[i], one rounding; `out` may be `values`.
void scale_rows_cuda(const float* values, const float* factors, std::int64_t n, std::int64_t columns,
                     float* out, cudaStream_t stream);

}  // namespace cgnrt
