#include <algorithm>
#include <cstdint>

#include "cuda/integers.cuh"
#include "cuda/launch.h"
#include "cuda/noise.h"
#include "ops/noise_math.h"

namespace cgnrt {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kWaves = 16;  // times the blocks that fill the device; threads go round for more

bool is_aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % 16 == 0; }

unsigned blocks_for(std::int64_t work) {
  const std::int64_t blocks = (work + kThreads - 1) / kThreads;
  return static_cast<unsigned>(std::min(blocks, kWaves * persistent_blocks(blocks, kThreads)));
}

__device__ __forceinline__ std::int64_t first_of_thread() {
  return std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
}
__device__ __forceinline__ std::int64_t threads_of_grid() { return std::int64_t{gridDim.x} * kThreads; }

// The bits of the number that a word makes.
template <NoiseKind kind>
__device__ __forceinline__ std::uint32_t number_of(const NoiseDeviceArgs& a, std::uint32_t word,
                                                   std::int64_t element) {
  if constexpr (kind == NoiseKind::kNormal) {
    return bits_of(normal_of(word));
  } else if constexpr (kind == NoiseKind::kTruncatedNormal) {
    return bits_of(truncated_normal_of(word));
  } else if constexpr (kind == NoiseKind::kIntegers) {
    return static_cast<std::uint32_t>(uniform_below(word, a.bounds[a.bounds_count == 1 ? 0 : element]));
  } else {
    return word;
  }
}

// A thread makes the four numbers of one Philox block.
template <NoiseKind kind>
__global__ void __launch_bounds__(kThreads)
    noise_kernel(const __grid_constant__ NoiseDeviceArgs a, std::int64_t row_blocks, bool stores_vectors) {
  const std::int64_t blocks = a.n * row_blocks;
  for (std::int64_t at = first_of_thread(); at < blocks; at += threads_of_grid()) {
    const std::int64_t row = quotient(at, row_blocks);
    const std::int64_t block = at - row * row_blocks;
    const auto index = static_cast<std::uint64_t>(a.indices[row]);
    std::uint32_t words[4] = {static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                              a.slot, static_cast<std::uint32_t>(block)};
    philox(words, static_cast<std::uint32_t>(a.seed), static_cast<std::uint32_t>(a.seed >> 32));
    std::uint32_t* out = static_cast<std::uint32_t*>(a.out) + row * a.size + block * 4;
    if (stores_vectors) {
#pragma unroll
      for (int e = 0; e < 4; ++e) words[e] = number_of<kind>(a, words[e], block * 4 + e);
      *reinterpret_cast<uint4*>(out) = make_uint4(words[0], words[1], words[2], words[3]);
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (block * 4 + e < a.size) out[e] = number_of<kind>(a, words[e], block * 4 + e);
      }
    }
  }
}

template <NoiseKind kind>
void launch_noise(const NoiseDeviceArgs& a, cudaStream_t stream) {
  const std::int64_t row_blocks = (a.size + 3) / 4;
  const bool stores_vectors = a.size % 4 == 0 && is_aligned(a.out);
  CGNRT_LAUNCH(noise_kernel<kind>, dim3(blocks_for(a.n * row_blocks)), dim3(kThreads), 0, stream, a,
               row_blocks, stores_vectors);
}

__device__ __forceinline__ void set(float& to, float value) { to = value; }
__device__ __forceinline__ void set(float4& to, float value) { to = make_float4(value, value, value, value); }
__device__ __forceinline__ float times(float a, float factor) { return a * factor; }
__device__ __forceinline__ float4 times(float4 a, float factor) {
  return make_float4(a.x * factor, a.y * factor, a.z * factor, a.w * factor);
}

// `columns` counts vectors in both.
template <typename Vector>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const Vector* table, std::int64_t rows, std::int64_t columns, const std::int64_t* index,
                  std::int64_t n, Vector* out) {
  for (std::int64_t at = first_of_thread(); at < n * columns; at += threads_of_grid()) {
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
__global__ void __launch_bounds__(kThreads) scale_kernel(const Vector* values, const float* factors,
                                                         std::int64_t n, std::int64_t columns, Vector* out) {
  for (std::int64_t at = first_of_thread(); at < n * columns; at += threads_of_grid()) {
    out[at] = times(values[at], factors[quotient(at, columns)]);
  }
}

}  // namespace

void noise_cuda(const NoiseDeviceArgs& args, cudaStream_t stream) {
  if (args.n == 0 || args.size == 0) return;
  switch (args.kind) {
    case NoiseKind::kWords:
      return launch_noise<NoiseKind::kWords>(args, stream);
    case NoiseKind::kNormal:
      return launch_noise<NoiseKind::kNormal>(args, stream);
    case NoiseKind::kTruncatedNormal:
      return launch_noise<NoiseKind::kTruncatedNormal>(args, stream);
    case NoiseKind::kIntegers:
      return launch_noise<NoiseKind::kIntegers>(args, stream);
  }
}

void gather_rows_cuda(const float* table, std::int64_t rows, std::int64_t columns, const std::int64_t* index,
                      std::int64_t n, float* out, cudaStream_t stream) {
  if (n == 0 || columns == 0) return;
  if (columns % 4 == 0 && is_aligned(table) && is_aligned(out)) {
    CGNRT_LAUNCH(gather_kernel<float4>, dim3(blocks_for(n * (columns / 4))), dim3(kThreads), 0, stream,
                 reinterpret_cast<const float4*>(table), rows, columns / 4, index, n,
                 reinterpret_cast<float4*>(out));
  } else {
    CGNRT_LAUNCH(gather_kernel<float>, dim3(blocks_for(n * columns)), dim3(kThreads), 0, stream, table, rows,
                 columns, index, n, out);
  }
}

void scale_rows_cuda(const float* values, const float* factors, std::int64_t n, std::int64_t columns,
                     float* out, cudaStream_t stream) {
  if (n == 0 || columns == 0) return;
  if (columns % 4 == 0 && is_aligned(values) && is_aligned(out)) {
    CGNRT_LAUNCH(scale_kernel<float4>, dim3(blocks_for(n * (columns / 4))), dim3(kThreads), 0, stream,
                 reinterpret_cast<const float4*>(values), factors, n, columns / 4,
                 reinterpret_cast<float4*>(out));
  } else {
    CGNRT_LAUNCH(scale_kernel<float>, dim3(blocks_for(n * columns)), dim3(kThreads), 0, stream, values,
                 factors, n, columns, out);
  }
}

}  // namespace cgnrt
