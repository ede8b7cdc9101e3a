#include <algorithm>
#include <cstdint>

#include "cuda/launch.cuh"
#include "ops/noise.h"
#include "ops/noise_math.h"

namespace cgnrt {
namespace {

constexpr int kMaxDeviceBounds = 64;  // they are passed with the launch

// A kernel's parameters.
struct NoiseDeviceArgs {
  std::uint64_t seed;
  const std::int64_t* indices;  // (n)
  std::int64_t n;
  std::uint32_t slot;
  std::int64_t size;          // numbers for each index
  std::int64_t bounds_count;  // 1: one for all; else `size`; of kIntegers only
  std::uint32_t bounds[kMaxDeviceBounds];
  void* out;  // (n, size) uint32, float32, float32 or int32
};

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
__global__ void __launch_bounds__(kLoopThreads)
    noise_kernel(const __grid_constant__ NoiseDeviceArgs a, std::int64_t row_blocks, bool stores_vectors) {
  const std::int64_t blocks = a.n * row_blocks;
  for (std::int64_t at = loop_first(); at < blocks; at += loop_step()) {
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
  const bool stores_vectors = a.size % 4 == 0 && is_aligned(a.out, 16);
  CGNRT_LAUNCH(noise_kernel<kind>, loop_blocks(a.n * row_blocks), dim3(kLoopThreads), 0, stream, a,
               row_blocks, stores_vectors);
}

}  // namespace

void noise(const NoiseCall& call, const Tensor& out) {
  require_noise_out(call, out);
  if (call.bounds.size() > kMaxDeviceBounds) {
    refuse(std::string(call.operation) + " bound", "length", std::to_string(call.bounds.size()),
           "at most " + std::to_string(kMaxDeviceBounds) + " on a GPU", "Draw on the CPU.");
  }
  NoiseDeviceArgs args{};
  args.seed = call.seed;
  args.indices = static_cast<const std::int64_t*>(call.indices.data);
  args.n = call.shape[0];
  args.slot = call.slot;
  args.size = call.size;
  args.bounds_count = static_cast<std::int64_t>(call.bounds.size());
  std::copy(call.bounds.begin(), call.bounds.end(), args.bounds);
  args.out = out.data;
  if (args.n == 0 || args.size == 0) return;
  const auto stream = static_cast<cudaStream_t>(call.target.stream);
  switch (call.kind) {
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

}  // namespace cgnrt
