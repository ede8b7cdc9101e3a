// Compiled once for every instruction set, with CGNRT_ISA naming the namespace. Nothing here may have
// external linkage but compose_blocks, and no header's inline function may be called unless it is CGNRT_HD:
// the linker would keep one copy for all instruction sets.
#include "ops/compose_kernel.h"

#include <cstring>

#if defined(__SSE2__) && !defined(CGNRT_PORTABLE)
#define CGNRT_X86 1
#include <immintrin.h>
#endif

#include "common/convert.h"
#include "ops/compose_pixel.h"

namespace cgnrt {
namespace CGNRT_ISA {
namespace {

constexpr std::int64_t kMaxInterleaved = 3;  // channels that NHWC interleaves by the block

// One block's working memory: it stays in the first-level cache.
struct alignas(64) Scratch {
  float mask[kBlockPixels];
  float foreground[kBlockPixels];
  float background[kBlockPixels];
  float blended[kBlockPixels];
  unsigned char rolled[kBlockPixels * sizeof(float)];
  unsigned char cast[kMaxInterleaved * kBlockPixels * sizeof(float)];
  unsigned char interleaved[kMaxInterleaved * kBlockPixels * sizeof(float)];
};

// memcpy for short runs of unpredictable length, without a call.
inline void copy_run(unsigned char* to, const unsigned char* from, std::int64_t bytes) {
  if (bytes >= 32) {
    std::int64_t at = 0;
    for (; at + 32 <= bytes; at += 32) std::memcpy(to + at, from + at, 32);
    if (at < bytes) std::memcpy(to + bytes - 32, from + bytes - 32, 32);
  } else if (bytes >= 16) {
    std::memcpy(to, from, 16);
    std::memcpy(to + bytes - 16, from + bytes - 16, 16);
  } else if (bytes >= 8) {
    std::memcpy(to, from, 8);
    std::memcpy(to + bytes - 8, from + bytes - 8, 8);
  } else {
    for (std::int64_t at = 0; at < bytes; at += 2) std::memcpy(to + at, from + at, 2);
  }
}

// Pixels first..first+count-1 of the rolled plane into `to`: each row of it is two runs of a row as stored.
inline void roll_run(unsigned char* to, const unsigned char* plane, std::int64_t first, std::int64_t count,
                     std::int64_t height, std::int64_t width, std::int64_t dy, std::int64_t dx,
                     std::int64_t size) {
  std::int64_t y = first / width;
  std::int64_t x = first - y * width;
  std::int64_t source_y = y - dy;
  if (source_y < 0) source_y += height;
  while (count > 0) {
    const unsigned char* row = plane + source_y * width * size;
    const bool wrapped = x < dx;
    const std::int64_t source_x = wrapped ? x - dx + width : x - dx;
    std::int64_t run = wrapped ? dx - x : width - x;
    if (run > count) run = count;
    copy_run(to, row + source_x * size, run * size);
    to += run * size;
    count -= run;
    x += run;
    if (x == width) {
      x = 0;
      if (++source_y == height) source_y = 0;
    }
  }
}

inline void halves_to_floats(float* __restrict to, const std::uint16_t* __restrict from, std::int64_t count) {
  std::int64_t at = 0;
#if defined(__F16C__)
  for (; at + 8 <= count; at += 8) {
    _mm256_storeu_ps(to + at, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at))));
  }
#endif
  for (; at < count; ++at) to[at] = half_to_float(from[at]);
}

inline void floats_to_halves(std::uint16_t* __restrict to, const float* __restrict from, std::int64_t count) {
  std::int64_t at = 0;
#if defined(__F16C__)
  for (; at + 8 <= count; at += 8) {
    const __m128i halves =
        _mm256_cvtps_ph(_mm256_loadu_ps(from + at), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + at), halves);
  }
#endif
  for (; at < count; ++at) to[at] = float_to_half(from[at]);
}

inline void floats_to_bfloat16s(std::uint16_t* __restrict to, const float* __restrict from,
                                std::int64_t count) {
  for (std::int64_t at = 0; at < count; ++at) to[at] = float_to_bfloat16(from[at]);
}

inline void floats_to_bytes(std::uint8_t* __restrict to, const float* __restrict from, std::int64_t count) {
  for (std::int64_t at = 0; at < count; ++at) to[at] = float_to_uint8(from[at]);
}

inline void cast_run(unsigned char* to, const float* from, std::int64_t count, DType output) {
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

template <bool kClamp, bool kScale, bool kBias>
inline void blend_run(float* __restrict to, const float* __restrict mask, const float* __restrict foreground,
                      const float* __restrict background, std::int64_t count, float low, float high,
                      float scale, float bias) {
  for (std::int64_t at = 0; at < count; ++at) {
    float value = blend(mask[at], foreground[at], background[at]);
    if (kClamp) value = clamp_to(value, low, high);
    if (kScale) value = value * scale;
    if (kBias) value = value + bias;
    to[at] = value;
  }
}

using BlendRun = void (*)(float*, const float*, const float*, const float*, std::int64_t, float, float, float,
                          float);

inline BlendRun blend_for(const ComposeArgs& a) {
  static constexpr BlendRun kRuns[8] = {
      blend_run<false, false, false>, blend_run<false, false, true>, blend_run<false, true, false>,
      blend_run<false, true, true>,   blend_run<true, false, false>, blend_run<true, false, true>,
      blend_run<true, true, false>,   blend_run<true, true, true>,
  };
  return kRuns[(a.clamp ? 4 : 0) + (a.scale != nullptr ? 2 : 0) + (a.bias != nullptr ? 1 : 0)];
}

template <typename T>
inline void interleave3(T* __restrict to, const T* __restrict c0, const T* __restrict c1,
                        const T* __restrict c2, std::int64_t count) {
  for (std::int64_t at = 0; at < count; ++at) {
    to[3 * at] = c0[at];
    to[3 * at + 1] = c1[at];
    to[3 * at + 2] = c2[at];
  }
}

template <typename T>
inline void scatter(T* __restrict to, const T* __restrict from, std::int64_t count, std::int64_t stride) {
  for (std::int64_t at = 0; at < count; ++at) to[at * stride] = from[at];
}

// Writes around the cache, which saves reading the line first.
inline void stream_run(unsigned char* to, const unsigned char* from, std::int64_t bytes) {
#if defined(CGNRT_X86)
  const std::int64_t head = static_cast<std::int64_t>(-reinterpret_cast<std::uintptr_t>(to) & 15u);
  std::int64_t at = head < bytes ? head : bytes;
  std::memcpy(to, from, static_cast<std::size_t>(at));
  for (; at + 16 <= bytes; at += 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + at),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at)));
  }
  std::memcpy(to + at, from + at, static_cast<std::size_t>(bytes - at));
#else
  std::memcpy(to, from, static_cast<std::size_t>(bytes));
#endif
}

// The run of one plane as floats: a pointer into the plane where it can be, else into `floats`.
inline const float* plane_run(const ComposeArgs& a, const void* data, std::int64_t plane, std::int64_t first,
                              std::int64_t count, std::int64_t dy, std::int64_t dx, unsigned char* rolled,
                              float* floats) {
  const std::int64_t size = a.input == DType::kFloat16 ? 2 : 4;
  const std::int64_t area = a.height * a.width;
  const unsigned char* start = static_cast<const unsigned char*>(data) + plane * area * size;
  const unsigned char* run = start + first * size;
  if ((dy | dx) != 0) {
    unsigned char* to = size == 4 ? reinterpret_cast<unsigned char*>(floats) : rolled;
    roll_run(to, start, first, count, a.height, a.width, dy, dx, size);
    run = to;
  }
  if (size == 4) return reinterpret_cast<const float*>(run);
  halves_to_floats(floats, reinterpret_cast<const std::uint16_t*>(run), count);
  return floats;
}

inline void compose_block(const ComposeArgs& a, std::int64_t sample, std::int64_t first, std::int64_t count,
                          BlendRun blend_into, Scratch& s) {
  const ComposeItem& item = a.items[sample];
  const std::int64_t size = static_cast<std::int64_t>(size_of(a.output));
  const std::int64_t area = a.height * a.width;
  const bool planar = a.layout == Layout::kNCHW || a.channels == 1;
  const bool interleaves = !planar && a.channels == 3;
  unsigned char* out = static_cast<unsigned char*>(a.out) + sample * a.channels * area * size;
  const float* mask = plane_run(a, a.masks, item.mask, first, count, 0, 0, s.rolled, s.mask);
  for (std::int64_t c = 0; c < a.channels; ++c) {
    const float* foreground = plane_run(a, a.foregrounds, item.foreground * a.channels + c, first, count,
                                        item.foreground_dy, item.foreground_dx, s.rolled, s.foreground);
    const float* background = plane_run(a, a.backgrounds, item.background * a.channels + c, first, count,
                                        item.background_dy, item.background_dx, s.rolled, s.background);
    unsigned char* to = out + (c * area + first) * size;
    const bool direct = planar && !a.streams && a.output == DType::kFloat32;
    float* blended = direct ? reinterpret_cast<float*>(to) : s.blended;
    blend_into(blended, mask, foreground, background, count, a.clamp_low, a.clamp_high,
               a.scale != nullptr ? a.scale[c] : 1.0f, a.bias != nullptr ? a.bias[c] : 0.0f);
    if (direct) continue;
    const unsigned char* result = reinterpret_cast<const unsigned char*>(s.blended);
    if (a.output != DType::kFloat32 || interleaves) {
      unsigned char* cast = planar && !a.streams ? to : s.cast + (interleaves ? c * kBlockPixels * size : 0);
      cast_run(cast, s.blended, count, a.output);
      result = cast;
    }
    if (planar) {
      if (a.streams) stream_run(to, result, count * size);
    } else if (!interleaves) {
      unsigned char* strided = out + (first * a.channels + c) * size;
      if (size == 4) {
        scatter(reinterpret_cast<float*>(strided), reinterpret_cast<const float*>(result), count, a.channels);
      } else if (size == 2) {
        scatter(reinterpret_cast<std::uint16_t*>(strided), reinterpret_cast<const std::uint16_t*>(result),
                count, a.channels);
      } else {
        scatter(strided, result, count, a.channels);
      }
    }
  }
  if (!interleaves) return;
  unsigned char* to = out + first * 3 * size;
  unsigned char* mixed = a.streams ? s.interleaved : to;
  if (size == 4) {
    const float* planes = reinterpret_cast<const float*>(s.cast);
    interleave3(reinterpret_cast<float*>(mixed), planes, planes + kBlockPixels, planes + 2 * kBlockPixels,
                count);
  } else if (size == 2) {
    const std::uint16_t* planes = reinterpret_cast<const std::uint16_t*>(s.cast);
    interleave3(reinterpret_cast<std::uint16_t*>(mixed), planes, planes + kBlockPixels,
                planes + 2 * kBlockPixels, count);
  } else {
    interleave3(mixed, s.cast, s.cast + kBlockPixels, s.cast + 2 * kBlockPixels, count);
  }
  if (a.streams) stream_run(to, s.interleaved, count * 3 * size);
}

}  // namespace

void compose_blocks(const ComposeArgs& a, std::int64_t first, std::int64_t last) {
  Scratch scratch;
  const BlendRun blend_into = blend_for(a);
  const std::int64_t area = a.height * a.width;
  const std::int64_t per_sample = (area + kBlockPixels - 1) / kBlockPixels;
  std::int64_t sample = first / per_sample;
  std::int64_t block = first - sample * per_sample;
  for (std::int64_t i = first; i < last; ++i) {
    const std::int64_t start = block * kBlockPixels;
    const std::int64_t count = area - start < kBlockPixels ? area - start : kBlockPixels;
    compose_block(a, sample, start, count, blend_into, scratch);
    if (++block == per_sample) {
      block = 0;
      ++sample;
    }
  }
#if defined(CGNRT_X86)
  if (a.streams) _mm_sfence();
#endif
}

}  // namespace CGNRT_ISA
}  // namespace cgnrt
