// Where the pixels of a block of compose lie, and how their values are finished. For the files that are
// compiled once for every instruction set, each of which has these functions for itself.
#pragma once

#include <cstdint>

#include "ops/compose.h"

namespace cgnrt {
namespace CGNRT_ISA {
namespace {

// Pixels of one sample: whole rows, or a part of one row that is longer than a block.
struct Span {
  std::int64_t sample;
  std::int64_t y;
  std::int64_t x;
  std::int64_t rows;
  std::int64_t width;
  std::int64_t count() const { return rows * width; }
};

// One of the two textures of a sample.
struct Texture {
  const ComposePool* pool;
  std::int64_t first_plane;
  std::int64_t dy;
  std::int64_t dx;
};

// Memory that is prefetched a line at a time during the computation: the next channel's planes, or the next
// block's mask and first planes.
struct Ahead {
  const char* mask;
  const char* foreground;
  const char* background;
  std::int64_t bytes_per_pixel;  // of the widest: of the others, following rows are fetched too
};

inline void fetch(const Ahead& ahead, std::int64_t at, std::int64_t count) {
  if (ahead.foreground == nullptr) return;
  const std::int64_t end = (at + count) * ahead.bytes_per_pixel;
  for (std::int64_t byte = at * ahead.bytes_per_pixel; byte < end; byte += 64) {
    __builtin_prefetch(ahead.foreground + byte);
    __builtin_prefetch(ahead.background + byte);
    __asm__ volatile("");  // else the compiler drops a loop of prefetches as without effect
  }
  if (ahead.mask == nullptr) return;
  for (std::int64_t byte = at * ahead.bytes_per_pixel; byte < end; byte += 64) {
    __builtin_prefetch(ahead.mask + byte);
    __asm__ volatile("");
  }
}

// The block's pixels.
inline Span span_of(const ComposeArgs& a, std::int64_t block) {
  const std::int64_t per_sample = blocks_per_sample(a);
  Span span{};
  span.sample = block / per_sample;
  block -= span.sample * per_sample;
  if (a.width <= a.block_pixels) {
    const std::int64_t rows = a.block_pixels / a.width;
    span.y = block * rows;
    span.rows = a.height - span.y < rows ? a.height - span.y : rows;
    span.width = a.width;
    return span;
  }
  const std::int64_t per_row = (a.width + a.block_pixels - 1) / a.block_pixels;
  span.y = block / per_row;
  span.x = (block - span.y * per_row) * a.block_pixels;
  span.rows = 1;
  span.width = a.width - span.x < a.block_pixels ? a.width - span.x : a.block_pixels;
  return span;
}

inline Texture foreground_of(const ComposeArgs& a, std::int64_t sample) {
  const ComposeItem& item = a.items[sample];
  return {&a.foregrounds, item.foreground * a.channels, item.foreground_roll.dy, item.foreground_roll.dx};
}

inline Texture background_of(const ComposeArgs& a, std::int64_t sample) {
  const ComposeItem& item = a.items[sample];
  return {&a.backgrounds, item.background * a.channels, item.background_roll.dy, item.background_roll.dx};
}

// Where pixel (y, x) of plane `plane`, counted in pixels, lies after a roll by (dy, dx).
inline std::int64_t offset_of(const ComposeArgs& a, std::int64_t plane, std::int64_t y, std::int64_t x,
                              std::int64_t dy, std::int64_t dx) {
  y = y < dy ? y - dy + a.height : y - dy;
  x = x < dx ? x - dx + a.width : x - dx;
  return (plane * a.height + y) * a.width + x;
}

// size_of a pool's dtype, without a jump.
inline std::int64_t pixel_size(const ComposePool& pool) {
  const std::int64_t narrow = pool.dtype == DType::kFloat16 ? 2 : 1;
  return pool.dtype == DType::kFloat32 ? 4 : narrow;
}

inline const char* address(const ComposePool& pool, std::int64_t at) {
  return static_cast<const char*>(pool.data) + at * pixel_size(pool);
}

// Ignores the wraps of rolls: a prefetch need not be exact.
inline Ahead ahead_of(const ComposeArgs& a, const Span& span, std::int64_t channel, bool with_mask) {
  const Texture f = foreground_of(a, span.sample);
  const Texture b = background_of(a, span.sample);
  const bool all = span.rows == a.height;  // then fetched from its beginning, whatever the roll
  const std::int64_t mask = offset_of(a, a.items[span.sample].mask, span.y, span.x, 0, 0);
  const std::int64_t foreground = offset_of(a, f.first_plane + channel, span.y, span.x, all ? 0 : f.dy, 0);
  const std::int64_t background = offset_of(a, b.first_plane + channel, span.y, span.x, all ? 0 : b.dy, 0);
  return {with_mask ? address(a.masks, mask) : nullptr, address(a.foregrounds, foreground),
          address(a.backgrounds, background), a.widest_pixel};
}

struct Form {
  float low, high;  // of the clamp
  float scale, bias;
};

// No scale is a product with 1, no bias a sum with -0: neither changes a bit of any value.
inline Form form_of(const ComposeArgs& a, std::int64_t channel) {
  return {a.clamp_low, a.clamp_high, a.scale != nullptr ? a.scale[channel] : 1.0f,
          a.bias != nullptr ? a.bias[channel] : -0.0f};
}

// The largest part from (span.y, span.x) on in which neither texture wraps, except within whole rows.
inline Span first_part(const ComposeArgs& a, const Span& span, const Texture& f, const Texture& b) {
  Span part = span;
  std::int64_t end = span.y + span.rows;
  if (span.y < f.dy && f.dy < end) end = f.dy;
  if (span.y < b.dy && b.dy < end) end = b.dy;
  part.rows = end - span.y;
  if (span.width == a.width) return part;
  end = span.x + span.width;
  if (span.x < f.dx && f.dx < end) end = f.dx;
  if (span.x < b.dx && b.dx < end) end = b.dx;
  part.width = end - span.x;
  return part;
}

// What is left of a span after its first part.
inline Span after(Span span, const Span& part, bool whole_rows) {
  if (whole_rows) {
    span.y += part.rows;
    span.rows -= part.rows;
  } else {
    span.x += part.width;
    span.width -= part.width;
  }
  return span;
}

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace cgnrt
