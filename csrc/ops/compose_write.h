// How composed values leave: cast, interleaved, written around the cache. For the files that are compiled
// once for every instruction set: the rules at the top of compose_kernel.cc hold here too.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/dtype.h"
#include "ops/casts.h"

namespace cgnrt {

constexpr std::int64_t kTile = 64;  // pixels that pass through all loops at once

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

// The same for floats fresh from the loops, whose vectors are read again as they were written.
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

// Where a plane's values go as they are made.
struct Sink {
  unsigned char* to;
  DType output;
  bool streams;

  // The place itself, where the values can be made there.
  float* in_place() const {
    return output == DType::kFloat32 && !streams ? reinterpret_cast<float*>(to) : nullptr;
  }
};

// Puts `count` values, at most kTile, at the sink's place `at`.
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

}  // namespace cgnrt
