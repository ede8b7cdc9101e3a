// Values of tensors to floats and back, in kernels: the bits of common/scalar.h, except the payload of NaNs
// in half precision, which the hardware's conversions do not keep.
#pragma once

#include <cuda_runtime.h>
#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include <cstdint>
#include <type_traits>

#include "common/scalar.h"

namespace cgnrt {

// How a value of a dtype lies in memory.
template <DType dtype>
using Stored = std::conditional_t<dtype == DType::kFloat32, float,
                                  std::conditional_t<dtype == DType::kUInt8, std::uint8_t, std::uint16_t>>;

// Values of a dtype in a 32-bit word.
template <DType dtype>
constexpr int kPerWord = 4 / static_cast<int>(sizeof(Stored<dtype>));

__device__ __forceinline__ float widen(float value) { return value; }

__device__ __forceinline__ float widen(std::uint16_t half) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(half));
#else
  return half_to_float(half);
#endif
}

template <DType dtype>
__device__ __forceinline__ Stored<dtype> narrow(float value) {
  if constexpr (dtype == DType::kFloat32) {
    return value;
  } else if constexpr (dtype == DType::kUInt8) {
    return float_to_uint8(value);
  } else if constexpr (dtype == DType::kFloat16) {
#if defined(__CUDA_ARCH__)
    return __half_as_ushort(__float2half_rn(value));
#else
    return float_to_half(value);
#endif
  } else {
    static_assert(dtype == DType::kBFloat16, "an output dtype");
#if defined(__CUDA_ARCH__)
    return __bfloat16_as_ushort(__float2bfloat16_rn(value));
#else
    return float_to_bfloat16(value);
#endif
  }
}

// kPerWord<dtype> values, the first lowest. Two halves are one instruction.
template <DType dtype>
__device__ __forceinline__ std::uint32_t pack_word(const float* values) {
  if constexpr (dtype == DType::kFloat32) {
    return bits_of(values[0]);
  } else if constexpr (dtype == DType::kUInt8) {
    std::uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) word |= static_cast<std::uint32_t>(float_to_uint8(values[i])) << (8 * i);
    return word;
  } else {
#if defined(__CUDA_ARCH__)
    std::uint32_t word;
    if constexpr (dtype == DType::kFloat16) {
      const __half2 pair = __floats2half2_rn(values[0], values[1]);
      memcpy(&word, &pair, sizeof word);
    } else {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(values[0], values[1]);
      memcpy(&word, &pair, sizeof word);
    }
    return word;
#else
    return narrow<dtype>(values[0]) | static_cast<std::uint32_t>(narrow<dtype>(values[1])) << 16;
#endif
  }
}

// kPerWord<dtype> floats of a word of float32, float16 or uint8; bytes as 0..255.
template <DType dtype>
__device__ __forceinline__ void unpack_word(std::uint32_t word, float* values) {
  if constexpr (dtype == DType::kFloat32) {
    values[0] = float_of(word);
  } else if constexpr (dtype == DType::kUInt8) {
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = static_cast<float>(word >> (8 * i) & 0xffu);
  } else {
    static_assert(dtype == DType::kFloat16, "an input dtype");
    values[0] = widen(static_cast<std::uint16_t>(word & 0xffffu));
    values[1] = widen(static_cast<std::uint16_t>(word >> 16));
  }
}

// One value at place `at`, past the caches: nothing here reads it again.
template <DType dtype>
__device__ __forceinline__ void store_pixel(void* out, std::int64_t at, float value) {
  __stcs(static_cast<Stored<dtype>*>(out) + at, narrow<dtype>(value));
}

template <DType dtype>
using DTypeConstant = std::integral_constant<DType, dtype>;

// Calls `with` with the DTypeConstant of an output dtype: kernels are templates of it.
template <typename F>
void with_output(DType output, F&& with) {
  switch (output) {
    case DType::kFloat16:
      return with(DTypeConstant<DType::kFloat16>{});
    case DType::kBFloat16:
      return with(DTypeConstant<DType::kBFloat16>{});
    case DType::kUInt8:
      return with(DTypeConstant<DType::kUInt8>{});
    default:
      return with(DTypeConstant<DType::kFloat32>{});
  }
}

}  // namespace cgnrt
