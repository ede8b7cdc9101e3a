// Eq. 2 over runs of floats, and pixels of any pool as floats. For the files that are compiled once for every
// instruction set, as compose_spans.h.
#pragma once

#include <cstdint>

#include "ops/compose.h"
#include "ops/compose_bytes.h"
#include "ops/compose_roll.h"
#include "ops/compose_spans.h"
#include "ops/pixel_runs.h"

namespace cgnrt {
namespace CGNRT_ISA {
namespace {

// Pixels of a pool as floats: in place, or converted to `buffer`.
inline const float* floats_at(const ComposePool& pool, std::int64_t at, std::int64_t count, ByteValues bytes,
                              float* buffer) {
  if (pool.dtype == DType::kFloat32) return static_cast<const float*>(pool.data) + at;
  if (pool.dtype == DType::kFloat16) {
    halves_to_floats(buffer, static_cast<const std::uint16_t*>(pool.data) + at, count);
  } else {
    bytes_to_floats(buffer, static_cast<const std::uint8_t*>(pool.data) + at, count, bytes);
  }
  return buffer;
}

template <bool kClamp, bool kAffine>
inline void blend_run(float* __restrict to, const float* __restrict mask, const float* __restrict foreground,
                      const float* __restrict background, std::int64_t count, const Form& form) {
  for (std::int64_t at = 0; at < count; ++at) {
    float value = blend(mask[at], foreground[at], background[at]);
    if (kClamp) value = clamp_to(value, form.low, form.high);
    if (kAffine) value = value * form.scale + form.bias;
    to[at] = value;
  }
}

// A part of a plane, as its loops see it. `at` is its place in the block.
struct Part {
  Sink sink;
  std::int64_t at;
  std::int64_t count;
  const float* mask;
  const float* foreground;
  const float* background;
  const RollTable* foreground_table;  // null: the rows are as stored, one after the other
  const RollTable* background_table;
  Form form;
  Ahead ahead;
};

template <bool kClamp, bool kAffine>
void blend_plain(const Part& part) {
  const Form form = part.form;
  const std::int64_t count = part.count;
  float* const in_place = part.sink.in_place();
  alignas(64) float tile[kTile];
  for (std::int64_t i = 0; i < count; i += kTile) {
    const std::int64_t at = part.at + i;
    const std::int64_t pixels = count - i < kTile ? count - i : kTile;
    float* to = in_place != nullptr ? in_place + at : tile;
    fetch(part.ahead, at, pixels);
    if (pixels == kTile) {  // a constant count becomes straight code
      blend_run<kClamp, kAffine>(to, part.mask + i, part.foreground + i, part.background + i, kTile, form);
    } else {
      blend_run<kClamp, kAffine>(to, part.mask + i, part.foreground + i, part.background + i, pixels, form);
    }
    if (in_place == nullptr) emit(part.sink, at, tile, pixels);
  }
}

using BlendPart = void (*)(const Part&);

constexpr std::int64_t kMaxInterleaved = 3;  // channels that NHWC interleaves block by block

// Where a block is written: each channel to its place, or, of pixels with three channels, to `planes` first.
struct BlockOut {
  const ComposeArgs* args;
  unsigned char* to;  // the block's first pixel
  std::int64_t size;  // bytes of a value
  std::int64_t count;
  bool planar;
  bool interleaves;
  bool streams;

  Sink sink(std::int64_t channel, unsigned char* planes) const {
    const std::int64_t area = args->height * args->width;
    unsigned char* buffer = planes + (interleaves ? channel * args->block_pixels * size : 0);
    return {planar ? to + channel * area * size : buffer, args->output, planar && streams};
  }

  void finish_channel(std::int64_t channel, const unsigned char* planes) const {
    if (!planar && !interleaves) scatter(size, to + channel * size, planes, count, args->channels);
  }

  void finish(const unsigned char* planes) const {
    if (!interleaves) return;
    if (size == 4) {
      interleave<float>(to, planes, args->block_pixels, count, streams);
    } else if (size == 2) {
      interleave<std::uint16_t>(to, planes, args->block_pixels, count, streams);
    } else {
      interleave<std::uint8_t>(to, planes, args->block_pixels, count, streams);
    }
  }
};

inline BlockOut block_out(const ComposeArgs& a, const Span& span) {
  const std::int64_t size = static_cast<std::int64_t>(size_of(a.output));
  const std::int64_t first = span.y * a.width + span.x;
  const bool planar = a.layout == Layout::kNCHW || a.channels == 1;
  unsigned char* out =
      static_cast<unsigned char*>(a.out) + span.sample * a.channels * a.height * a.width * size;
  return {&a,
          out + first * (planar ? 1 : a.channels) * size,
          size,
          span.count(),
          planar,
          !planar && a.channels == kMaxInterleaved,
          a.streaming == Streaming::kAlways};
}

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace cgnrt
