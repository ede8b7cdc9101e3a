// Loops over bytes. For the files that are compiled once for every instruction set, as compose_spans.h.
//
// Loops with bytes in them are functions that are not inlined: within a caller GCC forgets that nothing
// overlaps, and does not vectorise.
#pragma once

#include <cstdint>

#include "ops/compose.h"
#include "ops/compose_spans.h"
#include "ops/pixel_runs.h"

namespace cgnrt {
namespace CGNRT_ISA {
namespace {

constexpr std::int64_t kByteTile = 256;  // pixels between two prefetches

// A part of a plane of which all pools are bytes. `at` is its place in the block.
struct BytePart {
  Sink sink;
  std::int64_t at;
  std::int64_t count;
  const std::uint8_t* mask;
  const std::uint8_t* foreground;
  const std::uint8_t* background;
  Form form;
  Ahead ahead;
};

using BlendBytes = void (*)(const BytePart&);

__attribute__((noinline)) void bytes_to_floats(float* __restrict to, const std::uint8_t* __restrict from,
                                               std::int64_t count, ByteValues values) {
  for (std::int64_t at = 0; at < count; ++at) to[at] = value_of(static_cast<float>(from[at]), values);
}

// Eq. 2 of bytes: (mask * foreground + (255 - mask) * background) / 255, rounded to nearest; there are no
// ties.
__attribute__((noinline)) void blend_run(std::uint8_t* __restrict to, const std::uint8_t* __restrict mask,
                                         const std::uint8_t* __restrict foreground,
                                         const std::uint8_t* __restrict background, std::int64_t count) {
  for (std::int64_t at = 0; at < count; ++at) {
    const std::uint16_t covers = mask[at];
    const auto uncovers = static_cast<std::uint16_t>(255 - covers);
    const auto sum = static_cast<std::uint16_t>(covers * foreground[at] + uncovers * background[at] + 128);
    to[at] = static_cast<std::uint8_t>(static_cast<std::uint16_t>(sum + (sum >> 8)) >> 8);
  }
}

template <bool kClamp, bool kAffine>
__attribute__((noinline)) void blend_run(float* __restrict to, const std::uint8_t* __restrict mask,
                                         const std::uint8_t* __restrict foreground,
                                         const std::uint8_t* __restrict background, std::int64_t count,
                                         const Form& given) {
  const Form form = given;
  for (std::int64_t at = 0; at < count; ++at) {
    float value = blend(value_of(static_cast<float>(mask[at]), mask_bytes()),
                        value_of(static_cast<float>(foreground[at]), picture_bytes()),
                        value_of(static_cast<float>(background[at]), picture_bytes()));
    if (kClamp) value = clamp_to(value, form.low, form.high);
    if (kAffine) value = value * form.scale + form.bias;
    to[at] = value;
  }
}

void blend_to_bytes(const BytePart& part) {
  alignas(64) unsigned char tile[kByteTile];
  for (std::int64_t i = 0; i < part.count; i += kByteTile) {
    const std::int64_t pixels = part.count - i < kByteTile ? part.count - i : kByteTile;
    unsigned char* place = part.sink.to + part.at + i;
    fetch(part.ahead, part.at + i, pixels);
    blend_run(part.sink.streams ? tile : place, part.mask + i, part.foreground + i, part.background + i,
              pixels);
    if (part.sink.streams) stream_run(place, tile, pixels);
  }
}

template <bool kClamp, bool kAffine>
void blend_to_floats(const BytePart& part) {
  float* const in_place = part.sink.in_place();
  alignas(64) float tile[kByteTile];
  for (std::int64_t i = 0; i < part.count; i += kByteTile) {
    const std::int64_t at = part.at + i;
    const std::int64_t pixels = part.count - i < kByteTile ? part.count - i : kByteTile;
    fetch(part.ahead, at, pixels);
    blend_run<kClamp, kAffine>(in_place != nullptr ? in_place + at : tile, part.mask + i, part.foreground + i,
                               part.background + i, pixels, part.form);
    if (in_place != nullptr) continue;
    for (std::int64_t from = 0; from < pixels; from += kTile) {
      emit(part.sink, at + from, tile + from, pixels - from < kTile ? pixels - from : kTile);
    }
  }
}

// Null if some pool does not consist of bytes.
inline BlendBytes blend_bytes_for(const ComposeArgs& a) {
  if (!are_bytes(a)) return nullptr;
  if (keeps_bytes(a)) return blend_to_bytes;
  const bool affine = a.scale != nullptr || a.bias != nullptr;
  if (a.clamp) return affine ? blend_to_floats<true, true> : blend_to_floats<true, false>;
  return affine ? blend_to_floats<false, true> : blend_to_floats<false, false>;
}

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace cgnrt
