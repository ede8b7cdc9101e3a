// Runs of pixels in loops that are compiled once for every instruction set: conversions, bit for bit those of
// common/scalar.h, interleaving, and writing around the cache. The rules at the top of compose_kernel.cc hold
// here too.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/scalar.h"

// AVX2 implies x86-64-v3 here, and F16C with it. The baseline is plain loops on every machine, so that tests
// on x86 run the loops of other machines too.
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace cgnrt {

CGNRT_HD void halves_to_floats(float* __restrict to, const std::uint16_t* __restrict from,
                               std::int64_t count) {
  std::int64_t at = 0;
#if defined(__AVX2__)
  for (; at + 8 <= count; at += 8) {
    _mm256_storeu_ps(to + at, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at))));
  }
#endif
  for (; at < count; ++at) to[at] = half_to_float(from[at]);
}

CGNRT_HD void floats_to_halves(std::uint16_t* __restrict to, const float* __restrict from,
                               std::int64_t count) {
  std::int64_t at = 0;
#if defined(__AVX2__)
  for (; at + 8 <= count; at += 8) {
    const __m128i halves =
        _mm256_cvtps_ph(_mm256_loadu_ps(from + at), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + at), halves);
  }
#endif
  for (; at < count; ++at) to[at] = float_to_half(from[at]);
}

#if defined(__AVX2__)

// Floats to bfloat16, sign-extended to 32 bits: the signed pack to 16 bits then changes nothing.
CGNRT_HD __m256i bfloat16s_of(__m256 values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
  return _mm256_srai_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
}

// Four floats to integers that the packs saturate to 0..255. The minimum returns its second operand for a
// NaN, which then converts to the lowest integer, as values far below 0 do.
CGNRT_HD __m128i bytes_of(const float* from) {
  return _mm_cvtps_epi32(_mm_min_ps(_mm_set1_ps(255.0f), _mm_loadu_ps(from)));
}

#endif

CGNRT_HD void floats_to_bfloat16s(std::uint16_t* __restrict to, const float* __restrict from,
                                  std::int64_t count) {
  std::int64_t at = 0;
#if defined(__AVX2__)
  for (; at + 16 <= count; at += 16) {
    const __m256i packed = _mm256_packs_epi32(bfloat16s_of(_mm256_loadu_ps(from + at)),
                                              bfloat16s_of(_mm256_loadu_ps(from + at + 8)));
    // The pack works on each half: this puts the quarters in order.
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + at), _mm256_permute4x64_epi64(packed, 0xd8));
  }
#endif
  for (; at < count; ++at) to[at] = float_to_bfloat16(from[at]);
}

CGNRT_HD void floats_to_bytes(std::uint8_t* __restrict to, const float* __restrict from, std::int64_t count) {
  std::int64_t at = 0;
#if defined(__AVX2__)
  for (; at + 16 <= count; at += 16) {
    const __m128i low = _mm_packs_epi32(bytes_of(from + at), bytes_of(from + at + 4));
    const __m128i high = _mm_packs_epi32(bytes_of(from + at + 8), bytes_of(from + at + 12));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + at), _mm_packus_epi16(low, high));
  }
#endif
  for (; at < count; ++at) to[at] = float_to_uint8(from[at]);
}

constexpr std::int64_t kTile = 64;  // pixels that go through all loops at once

CGNRT_HD void cast_run(unsigned char* to, const float* from, std::int64_t count, DType output) {
  switch (output) {
    case DType::kFloat16:
      return floats_to_halves(reinterpret_cast<std::uint16_t*>(to), from, count);
    case DType::kBFloat16:
      return floats_to_bfloat16s(reinterpret_cast<std::uint16_t*>(to), from, count);
    case DType::kUInt8:
      return floats_to_bytes(to, from, count);
    default:
      std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
  }
}

// Writes around the cache, which saves reading the lines first.
CGNRT_HD void stream_run(unsigned char* to, const unsigned char* from, std::int64_t bytes) {
  std::int64_t at = 0;
#if defined(__AVX2__)
  at = static_cast<std::int64_t>(-reinterpret_cast<std::uintptr_t>(to) & 15u);
  if (at > bytes) at = bytes;
  if (at > 0) std::memcpy(to, from, static_cast<std::size_t>(at));
  for (; at + 64 <= bytes; at += 64) {  // a line
    for (int part = 0; part < 64; part += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + at + part),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at + part)));
    }
  }
  for (; at + 16 <= bytes; at += 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + at),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at)));
  }
#endif
  if (at < bytes) std::memcpy(to + at, from + at, static_cast<std::size_t>(bytes - at));
}

// The same for floats that the loops have just written, read in the same vectors.
CGNRT_HD void stream_floats(float* to, const float* from, std::int64_t count) {
  std::int64_t at = 0;
#if defined(__AVX2__)
  if (reinterpret_cast<std::uintptr_t>(to) % 32 == 0) {
    for (; at + 8 <= count; at += 8) _mm256_stream_ps(to + at, _mm256_loadu_ps(from + at));
  }
#endif
  if (at == count) return;
  stream_run(reinterpret_cast<unsigned char*>(to + at), reinterpret_cast<const unsigned char*>(from + at),
             (count - at) * static_cast<std::int64_t>(sizeof(float)));
}

// Where the values of a plane are written.
struct Sink {
  unsigned char* to;
  DType output;
  bool streams;

  // That memory, if the loops can write to it directly.
  float* in_place() const {
    return output == DType::kFloat32 && !streams ? reinterpret_cast<float*>(to) : nullptr;
  }
};

// Writes `count` values, at most kTile, from item `at` of the sink on.
CGNRT_HD void emit(const Sink& sink, std::int64_t at, const float* values, std::int64_t count) {
  const std::int64_t size = static_cast<std::int64_t>(size_of(sink.output));
  unsigned char* to = sink.to + at * size;
  if (sink.streams && sink.output == DType::kFloat32) {
    return stream_floats(reinterpret_cast<float*>(to), values, count);
  }
  alignas(64) unsigned char tile[kTile * sizeof(std::uint16_t)];
  cast_run(sink.streams ? tile : to, values, count, sink.output);
  if (sink.streams) stream_run(to, tile, count * size);
}

template <typename T>
CGNRT_HD void interleave3(T* __restrict to, const T* __restrict c0, const T* __restrict c1,
                          const T* __restrict c2, std::int64_t count) {
  for (std::int64_t at = 0; at < count; ++at) {
    to[3 * at] = c0[at];
    to[3 * at + 1] = c1[at];
    to[3 * at + 2] = c2[at];
  }
}

// Three planes, `stride` values apart, into pixels.
template <typename T>
CGNRT_HD void interleave(unsigned char* to, const unsigned char* from, std::int64_t stride,
                         std::int64_t count, bool streams) {
  const T* planes = reinterpret_cast<const T*>(from);
  alignas(64) T tile[3 * kTile];
  for (std::int64_t at = 0; at < count; at += kTile) {
    const std::int64_t pixels = count - at < kTile ? count - at : kTile;
    unsigned char* here = to + at * 3 * static_cast<std::int64_t>(sizeof(T));
    T* mixed = streams ? tile : reinterpret_cast<T*>(here);
    interleave3(mixed, planes + at, planes + stride + at, planes + 2 * stride + at, pixels);
    if (streams) {
      stream_run(here, reinterpret_cast<const unsigned char*>(tile),
                 pixels * 3 * static_cast<std::int64_t>(sizeof(T)));
    }
  }
}

template <typename T>
CGNRT_HD void scatter(unsigned char* to, const unsigned char* from, std::int64_t count, std::int64_t stride) {
  T* places = reinterpret_cast<T*>(to);
  const T* values = reinterpret_cast<const T*>(from);
  for (std::int64_t at = 0; at < count; ++at) places[at * stride] = values[at];
}

// Spreads one channel over pixels: values of `size` bytes, `stride` values apart.
CGNRT_HD void scatter(std::int64_t size, unsigned char* to, const unsigned char* from, std::int64_t count,
                      std::int64_t stride) {
  if (size == 4) return scatter<float>(to, from, count, stride);
  if (size == 2) return scatter<std::uint16_t>(to, from, count, stride);
  scatter<std::uint8_t>(to, from, count, stride);
}

}  // namespace cgnrt
