// The types of values, and the arithmetic of single values that the CPU variants and CUDA device code share:
// the conversions between float32 and the narrow types. Every variant gives these bits.
//
// Rounding is to nearest, ties to even. A NaN keeps its sign and the top of its payload and becomes quiet, as
// x86's F16C and ARM's converters do; as uint8 it becomes 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

// CGNRT_HD marks a function for the host and the device. On the host such functions have internal linkage and
// are always inlined: several files compile the same header for different instruction sets, and the linker
// could keep a shared copy that the machine cannot run.
#if defined(__CUDACC__)
#define CGNRT_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define CGNRT_HD static inline __attribute__((always_inline, unused))
#else
#define CGNRT_HD static inline
#endif

namespace cgnrt {

enum class DType { kFloat32, kFloat16, kBFloat16, kUInt8, kUInt16, kUInt32, kInt32, kInt64, kOther };

CGNRT_HD constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kUInt8:
      return 1;
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kUInt16:
      return 2;
    case DType::kFloat32:
    case DType::kUInt32:
    case DType::kInt32:
      return 4;
    case DType::kInt64:
      return 8;
    case DType::kOther:
      break;
  }
  return 0;
}

constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kFloat16:
      return "float16";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kUInt8:
      return "uint8";
    case DType::kUInt16:
      return "uint16";
    case DType::kUInt32:
      return "uint32";
    case DType::kInt32:
      return "int32";
    case DType::kInt64:
      return "int64";
    case DType::kOther:
      break;
  }
  return "other";
}

CGNRT_HD std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

CGNRT_HD float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

CGNRT_HD float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16;
  const std::uint32_t magnitude = half & 0x7fffu;
  const std::uint32_t normal = (magnitude << 13) + (112u << 23);
  // A subnormal half counts units of 2^-24, which is exact in float32.
  const std::uint32_t subnormal =
      bits_of(static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f);
  const std::uint32_t quiet = magnitude > 0x7c00u ? 0x00400000u : 0u;
  const std::uint32_t special = 0x7f800000u | ((magnitude & 0x03ffu) << 13) | quiet;
  const std::uint32_t finite = magnitude < 0x0400u ? subnormal : normal;
  return float_of(sign | (magnitude >= 0x7c00u ? special : finite));
}

CGNRT_HD std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t rebased = magnitude - (112u << 23);
  const std::uint32_t normal = (rebased + 0x0fffu + ((rebased >> 13) & 1u)) >> 13;
  // Below 2^-14: adding 0.5 makes the adder itself round to the subnormal unit, 2^-24.
  const std::uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
  const std::uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const std::uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x03ffu);
  const std::uint32_t special = magnitude > 0x7f800000u ? nan : 0x7c00u;
  // 65520, the first value that rounds to infinity, is 0x477ff000.
  return static_cast<std::uint16_t>(sign | (magnitude >= 0x477ff000u ? special : finite));
}

CGNRT_HD std::uint16_t float_to_bfloat16(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t nan = (bits >> 16) | 0x0040u;
  return static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

CGNRT_HD std::uint8_t float_to_uint8(float value) {
  float clamped = value > 0.0f ? value : 0.0f;  // a NaN compares false: 0
  clamped = clamped < 255.0f ? clamped : 255.0f;
  // Adding 1.5 * 2^23 leaves the rounded integer in the low bits of the significand.
  return static_cast<std::uint8_t>(bits_of(clamped + 12582912.0f) & 0xffu);
}

// Stores a value as `dtype`, item `at` of `data`: for the scalar references.
CGNRT_HD void store_as(DType dtype, void* data, std::int64_t at, float value) {
  switch (dtype) {
    case DType::kFloat16:
      static_cast<std::uint16_t*>(data)[at] = float_to_half(value);
      break;
    case DType::kBFloat16:
      static_cast<std::uint16_t*>(data)[at] = float_to_bfloat16(value);
      break;
    case DType::kUInt8:
      static_cast<std::uint8_t*>(data)[at] = float_to_uint8(value);
      break;
    default:
      static_cast<float*>(data)[at] = value;
  }
}

}  // namespace cgnrt
