// compose where objects have places. The rules at the top of compose_kernel.cc hold here too.
//
// Of each row of the object the two rows that it lies between are blended to one, its columns are taken out
// of that one, and the composer's own loops do the rest. Which columns, and with what weights, is the same
// for all rows and channels of a sample, and stands in a table.
#include "ops/compose.h"
#include "ops/compose_blend.h"
#include "ops/compose_columns.h"
#include "ops/compose_spans.h"
#include "ops/pixel_runs.h"

namespace cgnrt {
namespace CGNRT_ISA {
namespace {

struct alignas(64) PlaceScratch {
  Columns columns;
  float mask[kBlockPixels];  // of the block, moved
  float foreground[kBlockPixels];
  float background[kBlockPixels];  // converted or rolled
  float between[kMaxSource + 2 * kLanes];
  float rows[2][kMaxSource];  // converted or rolled
  Tap taps[kBlockPixels];     // of the rows of the block
  Tap next_taps[kBlockPixels];
  unsigned char planes[kMaxInterleaved * kBlockPixels * sizeof(float)];
};

// row_of of a pool that has to be converted, or is rolled.
__attribute__((noinline)) const float* row_of_any(const ComposeArgs& a, const Texture& texture,
                                                  std::int64_t channel, std::int64_t y, std::int64_t x,
                                                  std::int64_t count, ByteValues bytes, float* buffer) {
  const std::int64_t plane = texture.first_plane + channel;
  const std::int64_t at = offset_of(a, plane, y, x, texture.dy, texture.dx);
  if (x >= texture.dx || texture.dx >= x + count) return floats_at(*texture.pool, at, count, bytes, buffer);
  const std::int64_t before = texture.dx - x;
  const float* end = floats_at(*texture.pool, at, before, bytes, buffer);
  const float* start = floats_at(*texture.pool, offset_of(a, plane, y, texture.dx, texture.dy, texture.dx),
                                 count - before, bytes, buffer + before);
  if (end == buffer) return buffer;
  for (std::int64_t i = 0; i < before; ++i) buffer[i] = end[i];
  for (std::int64_t i = before; i < count; ++i) buffer[i] = start[i - before];
  return buffer;
}

// Pixels x..x+count-1 of row y of a texture, after its roll, as floats: in place, or in `buffer`.
inline const float* row_of(const ComposeArgs& a, const Texture& texture, std::int64_t channel, std::int64_t y,
                           std::int64_t x, std::int64_t count, ByteValues bytes, float* buffer) {
  const std::int64_t plane = texture.first_plane + channel;
  const std::int64_t at = offset_of(a, plane, y, x, texture.dy, texture.dx);
  if (texture.pool->dtype == DType::kFloat32 && texture.dx == 0) {
    return static_cast<const float*>(texture.pool->data) + at;
  }
  return row_of_any(a, texture, channel, y, x, count, bytes, buffer);
}

__attribute__((noinline)) void between_rows(float* __restrict to, const float* __restrict first,
                                            const float* __restrict second, float weight,
                                            std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = first[i] + weight * (second[i] - first[i]);
}

inline void copy_row(float* __restrict to, const float* __restrict from, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = from[i];
}

// A pixel of a texture after its roll, as one value between four.
inline float moved_pixel(const ComposeArgs& a, const Texture& texture, std::int64_t channel, const Tap& row,
                         std::int64_t x, ByteValues bytes) {
  float buffers[2][8];  // the compiler takes converting for a loop of eight
  const float first = *row_of(a, texture, channel, row.first, x, 1, bytes, buffers[0]);
  if (row.weight == 0.0f) return first;
  return between(first, *row_of(a, texture, channel, row.first + 1, x, 1, bytes, buffers[1]), row.weight);
}

// A row of a texture, moved, in the columns of the table: the others of `to` stay as they are.
inline void move_row(const ComposeArgs& a, const Texture& texture, std::int64_t channel, const Tap& row,
                     ByteValues bytes, float* to, PlaceScratch& s) {
  const Columns& columns = s.columns;
  const std::int64_t count = columns.count;
  to += columns.begin;
  if (!columns.dense) {  // a few pixels of a long row
    for (std::int64_t i = 0; i < columns.end - columns.begin; ++i) {
      const std::int64_t from = columns.low + columns.firsts[i];
      const float first = moved_pixel(a, texture, channel, row, from, bytes);
      const float weight = columns.weights[i];
      to[i] = weight == 0.0f ? first
                             : between(first, moved_pixel(a, texture, channel, row, from + 1, bytes), weight);
    }
    return;
  }
  const float* from = row_of(a, texture, channel, row.first, columns.low, count, bytes, s.rows[0]);
  const bool two = row.weight != 0.0f;
  const float* next =
      two ? row_of(a, texture, channel, row.first + 1, columns.low, count, bytes, s.rows[1]) : from;
  if (columns.whole) {
    from += columns.start, next += columns.start;
    const std::int64_t taken = columns.end - columns.begin;
    if (!two) return copy_row(to, from, taken);
    return between_rows(to, from, next, row.weight, taken);
  }
  if (!columns.near || columns.room > count) {
    if (two) {
      between_rows(s.between, from, next, row.weight, count);
    } else {
      copy_row(s.between, from, count);
    }
    if (!columns.near) return take_any(to, s.between, columns);
    return take_near<false>(to, s.between, s.between, 0.0f, columns);
  }
  if (two) return take_near<true>(to, from, next, row.weight, columns);
  take_near<false>(to, from, next, 0.0f, columns);
}

// Four lines at a time: a line too many costs less than the turns of a loop.
inline void fetch_run(const char* from, std::int64_t bytes) {
  for (const char* const end = from + bytes; from < end; from += 256) {
    __builtin_prefetch(from);
    __builtin_prefetch(from + 64);
    __builtin_prefetch(from + 128);
    __builtin_prefetch(from + 192);
    __asm__ volatile("");  // else the compiler drops a loop of prefetches as without effect
  }
}

// What is fetched while a block of one channel is moved: the rows that the next one comes from, and those of
// a background.
struct RowsAhead {
  const Span* span;
  Texture texture;
  std::int64_t channel;
  std::int64_t low, count;  // columns
  const Tap* taps;
  std::int64_t fetched;  // up to this row

  // Those of row `row` of the span.
  void fetch(const ComposeArgs& a, std::int64_t row) {
    if (span == nullptr || row >= span->rows) return;
    const Tap tap = taps[row];
    if (!tap.inside) return;
    const std::int64_t last = tap.first + (tap.weight == 0.0f ? 0 : 1);
    for (std::int64_t from = tap.first > fetched ? tap.first : fetched + 1; from <= last; ++from) {
      const std::int64_t at = offset_of(a, texture.first_plane + channel, from, low, texture.dy, 0);
      fetch_run(address(*texture.pool, at), count * pixel_size(*texture.pool));
    }
    fetched = last;
  }
};

// The block of one channel of a texture, moved. Where the object does not reach, `to` is 0.
inline void move_block(const ComposeArgs& a, const Span& span, const Texture& texture, std::int64_t channel,
                       ByteValues bytes, float* to, RowsAhead ahead, PlaceScratch& s) {
  for (std::int64_t row = 0; row < span.rows; ++row, to += span.width) {
    ahead.fetch(a, row);
    const Tap tap = s.taps[row];
    if (tap.inside && s.columns.count > 0) {
      move_row(a, texture, channel, tap, bytes, to, s);
    } else {
      for (std::int64_t i = s.columns.begin; i < s.columns.end; ++i) to[i] = 0.0f;
    }
  }
}

// The block of one channel of a background: in place, or in `buffer`.
inline const float* background_block(const ComposeArgs& a, const Span& span, const Texture& texture,
                                     std::int64_t channel, float* buffer) {
  const bool wraps = span.y < texture.dy && texture.dy < span.y + span.rows;
  if (span.rows == 1 || (texture.dx == 0 && !wraps)) {
    if (span.rows == 1)
      return row_of(a, texture, channel, span.y, span.x, span.width, picture_bytes(), buffer);
    const std::int64_t at = offset_of(a, texture.first_plane + channel, span.y, 0, texture.dy, 0);
    return floats_at(*texture.pool, at, span.count(), picture_bytes(), buffer);
  }
  for (std::int64_t row = 0; row < span.rows; ++row) {
    float* to = buffer + row * span.width;
    const float* from = row_of(a, texture, channel, span.y + row, 0, span.width, picture_bytes(), to);
    if (from == to) continue;
    for (std::int64_t i = 0; i < span.width; ++i) to[i] = from[i];
  }
  return buffer;
}

inline Texture mask_of(const ComposeArgs& a, std::int64_t sample) {
  return {&a.masks, a.items[sample].mask, 0, 0};
}

inline void fill_taps(const ComposeArgs& a, const Span& span, Tap* taps) {
  const Place& place = a.places[span.sample];
  for (std::int64_t row = 0; row < span.rows; ++row) {
    taps[row] = tap_of(span.y + row, a.height, place.dy, place.scale, false);
  }
}

// What is fetched while a block of one channel is blended: the background of the next one.
inline Ahead background_ahead(const ComposeArgs& a, const Span& span, std::int64_t channel) {
  const Texture b = background_of(a, span.sample);
  const std::int64_t at = offset_of(a, b.first_plane + channel, span.y, span.x, b.dy, 0);
  const char* from = address(a.backgrounds, at);
  return {nullptr, from, from, pixel_size(a.backgrounds)};
}

// The mask of the next block. Of another sample its columns are not known yet.
inline RowsAhead mask_ahead(const ComposeArgs& a, const Span& next, const PlaceScratch& s) {
  const bool known = next.sample == s.columns.sample && next.x == s.columns.x;
  const std::int64_t low = known ? s.columns.low : next.x, count = known ? s.columns.count : next.width;
  return {&next, mask_of(a, next.sample), 0, low, count, s.next_taps, -1};
}

// The taps of the block's rows are those of the last call's `next`, or those of a first block.
inline void place_block(const ComposeArgs& a, const Span& span, const Span* next, BlendPart blend_into,
                        PlaceScratch& s) {
  if (s.columns.sample != span.sample || s.columns.x != span.x) {
    fill_columns(a, span, s.columns);
    for (std::int64_t i = 0; i < kBlockPixels; ++i) s.mask[i] = s.foreground[i] = 0.0f;
  }
  for (std::int64_t row = 0; row < span.rows; ++row) s.taps[row] = s.next_taps[row];
  if (next != nullptr) fill_taps(a, *next, s.next_taps);
  const Texture f = foreground_of(a, span.sample);
  const Texture b = background_of(a, span.sample);
  RowsAhead ahead{&span, f, 0, s.columns.low, s.columns.count, s.taps, -1};
  move_block(a, span, mask_of(a, span.sample), 0, mask_bytes(), s.mask, ahead, s);
  const BlockOut out = block_out(a, span);
  Part part{};
  part.count = span.count();
  part.mask = s.mask;
  part.foreground = s.foreground;
  for (std::int64_t c = 0; c < a.channels; ++c) {
    ahead.channel = c + 1;
    if (c + 1 == a.channels) {
      ahead = next != nullptr ? mask_ahead(a, *next, s) : RowsAhead{};
    }
    move_block(a, span, f, c, picture_bytes(), s.foreground, ahead, s);
    part.sink = out.sink(c, s.planes);
    part.form = form_of(a, c);
    part.background = background_block(a, span, b, c, s.background);
    part.ahead = c + 1 < a.channels ? background_ahead(a, span, c + 1)
                 : next != nullptr  ? background_ahead(a, *next, 0)
                                    : Ahead{};
    blend_into(part);
    out.finish_channel(c, s.planes);
  }
  out.finish(s.planes);
}

void place_blocks(const ComposeArgs& a, std::int64_t first, std::int64_t last) {
  PlaceScratch scratch;
  scratch.columns.sample = -1;
  const bool affine = a.scale != nullptr || a.bias != nullptr;
  const BlendPart blend_into = a.clamp ? (affine ? blend_plain<true, true> : blend_plain<true, false>)
                                       : (affine ? blend_plain<false, true> : blend_plain<false, false>);
  if (first < last) fill_taps(a, span_of(a, first), scratch.next_taps);
  for (std::int64_t block = first; block < last; ++block) {
    const Span span = span_of(a, block);
    Span next{};
    if (block + 1 < last) next = span_of(a, block + 1);
    place_block(a, span, block + 1 < last ? &next : nullptr, blend_into, scratch);
  }
#if defined(__AVX2__)
  if (a.streaming == Streaming::kAlways) _mm_sfence();
#endif
}

}  // namespace

const ComposeKernel kComposePlace = {place_blocks};

}  // namespace CGNRT_ISA
}  // namespace cgnrt
