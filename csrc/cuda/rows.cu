#include <cstdint>

#include "common/scalar.h"
#include "cuda/launch.cuh"
#include "cuda/rows.h"

namespace cgnrt {
namespace {

__device__ __forceinline__ void set(float& to, float value) { to = value; }
__device__ __forceinline__ void set(float4& to, float value) { to = make_float4(value, value, value, value); }
__device__ __forceinline__ float times(float a, float factor) { return a * factor; }
__device__ __forceinline__ float4 times(float4 a, float factor) {
  return make_float4(a.x * factor, a.y * factor, a.z * factor, a.w * factor);
}

// `columns` counts vectors in both.
template <typename Vector>
__global__ void __launch_bounds__(kLoopThreads)
    gather_kernel(const Vector* table, std::int64_t rows, std::int64_t columns, const std::int64_t* index,
                  std::int64_t n, Vector* out) {
  for (std::int64_t at = loop_first(); at < n * columns; at += loop_step()) {
    const std::int64_t row = quotient(at, columns);
    const std::int64_t from = index[row];
    if (from >= 0 && from < rows) {
      out[at] = __ldg(table + from * columns + (at - row * columns));
    } else {
      set(out[at], float_of(0x7fc00000u));
    }
  }
}

template <typename Vector>
__global__ void __launch_bounds__(kLoopThreads)
    scale_kernel(const Vector* values, const float* factors, std::int64_t n, std::int64_t columns,
                 Vector* out) {
  for (std::int64_t at = loop_first(); at < n * columns; at += loop_step()) {
    out[at] = times(values[at], factors[quotient(at, columns)]);
  }
}

}  // namespace

void gather_rows_cuda(const float* table, std::int64_t rows, std::int64_t columns, const std::int64_t* index,
                      std::int64_t n, float* out, cudaStream_t stream) {
  if (n == 0 || columns == 0) return;
  if (columns % 4 == 0 && is_aligned(table, 16) && is_aligned(out, 16)) {
    CGNRT_LAUNCH(gather_kernel<float4>, loop_blocks(n * (columns / 4)), dim3(kLoopThreads), 0, stream,
                 reinterpret_cast<const float4*>(table), rows, columns / 4, index, n,
                 reinterpret_cast<float4*>(out));
  } else {
    CGNRT_LAUNCH(gather_kernel<float>, loop_blocks(n * columns), dim3(kLoopThreads), 0, stream, table, rows,
                 columns, index, n, out);
  }
}

void scale_rows_cuda(const float* values, const float* factors, std::int64_t n, std::int64_t columns,
                     float* out, cudaStream_t stream) {
  if (n == 0 || columns == 0) return;
  if (columns % 4 == 0 && is_aligned(values, 16) && is_aligned(out, 16)) {
    CGNRT_LAUNCH(scale_kernel<float4>, loop_blocks(n * (columns / 4)), dim3(kLoopThreads), 0, stream,
                 reinterpret_cast<const float4*>(values), factors, n, columns / 4,
                 reinterpret_cast<float4*>(out));
  } else {
    CGNRT_LAUNCH(scale_kernel<float>, loop_blocks(n * columns), dim3(kLoopThreads), 0, stream, values,
                 factors, n, columns, out);
  }
}

}  // namespace cgnrt
