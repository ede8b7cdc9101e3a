// Compiled once for every instruction set, with CGNRT_ISA naming the namespace. Only kCompose may have
// external linkage here, and a function of a header may be called only if it is CGNRT_HD or, as those of
// compose_spans.h, in that namespace: of another inline function the linker would keep one copy for all
// instruction sets.
//
// A block goes tile by tile through short loops that the compiler vectorises, from one small buffer to the
// next, all in the first-level cache, and is written in whole lines. Meanwhile the next planes are fetched.
// Memory limits the speed: the loops cost less than the waiting that they hide.
#include "ops/compose.h"
#include "ops/compose_blend.h"
#include "ops/compose_bytes.h"
#include "ops/compose_roll.h"
#include "ops/compose_spans.h"
#include "ops/pixel_runs.h"

namespace cgnrt {
namespace CGNRT_ISA {
namespace {

static_assert(kMaxVectors * kVector >= kBlockPixels, "a block has an entry for each vector");

// One block's working memory.
struct alignas(64) Scratch {
  float mask[kBlockPixels];  // converted from halves or bytes
  float foreground[kBlockPixels];
  float background[kBlockPixels];
  float foreground_seams[kBlockPixels];  // or the rolled rows, of odd widths
  float background_seams[kBlockPixels];
  RollTable foreground_table;
  RollTable background_table;
  std::uint8_t foreground_bytes[kByteBlockPixels];  // rolled rows
  std::uint8_t background_bytes[kByteBlockPixels];
  unsigned char planes[kMaxInterleaved * kByteBlockPixels];
};

template <bool kClamp, bool kAffine>
inline void blend_vectors(float* to, const Part& part, std::int64_t at, std::int64_t count,
                          const Form& form) {
  for (std::int64_t i = at; i < at + count; i += kVector) {
    const float* foreground = part.foreground + i + part.foreground_table->shifts[i / kVector];
    const float* background = part.background + i + part.background_table->shifts[i / kVector];
    blend_run<kClamp, kAffine>(to + i - at, part.mask + i, foreground, background, kVector, form);
  }
}

template <bool kClamp, bool kAffine>
void blend_rolled(const Part& given) {
  const Part part = given;
  const std::int64_t count = part.count;
  float* const in_place = part.sink.in_place();
  alignas(64) float tile[kTile];
  for (std::int64_t i = 0; i < count; i += kTile) {
    const std::int64_t at = part.at + i;
    const std::int64_t pixels = count - i < kTile ? count - i : kTile;
    float* to = in_place != nullptr ? in_place + at : tile;
    fetch(part.ahead, at, pixels);
    if (pixels == kTile) {
      blend_vectors<kClamp, kAffine>(to, part, i, kTile, part.form);
    } else {
      blend_vectors<kClamp, kAffine>(to, part, i, pixels, part.form);
    }
    if (in_place == nullptr) emit(part.sink, at, tile, pixels);
  }
}

template <bool kClamp, bool kAffine>
void blend_part(const Part& part) {
  if (part.foreground_table != nullptr) return blend_rolled<kClamp, kAffine>(part);
  blend_plain<kClamp, kAffine>(part);
}

inline BlendPart blend_for(const ComposeArgs& a) {
  const bool affine = a.scale != nullptr || a.bias != nullptr;
  if (a.clamp) return affine ? blend_part<true, true> : blend_part<true, false>;
  return affine ? blend_part<false, true> : blend_part<false, false>;
}

// Whether rolled rows of the span can be read in place, a vector at a time.
inline bool rolls_by_vectors(const ComposeArgs& a, const Span& span, const Texture& f, const Texture& b) {
  if (span.width != a.width || a.width % kVector != 0 || a.width < kMinRolledWidth) return false;
  const std::int64_t end = span.y + span.rows;
  return (f.dx | b.dx) != 0 || (span.y < f.dy && f.dy < end) || (span.y < b.dy && b.dy < end);
}

// The rows of the span before its texture wraps from the last row to the first.
inline std::int64_t rows_before_wrap(const Span& span, const Texture& texture) {
  return span.y < texture.dy ? texture.dy - span.y : span.rows;
}

// Narrow pixels are converted in the order of the batch, so that only the wrap within rows is left to the
// table.
inline void fill_table(const ComposeArgs& a, const Span& span, const Texture& texture, RollTable& table) {
  const bool in_place = texture.pool->dtype == DType::kFloat32;
  const std::int64_t before = in_place ? rows_before_wrap(span, texture) : span.rows;
  fill_roll_table(table, span.rows, a.width, texture.dx, before, a.height * a.width);
}

// The span of one plane for blend_rolled: its first row's place, its table complete.
inline const float* rolled_plane(const ComposeArgs& a, const Span& span, const Texture& texture,
                                 std::int64_t channel, float* buffer, float* seams, RollTable& table) {
  const std::int64_t plane = texture.first_plane + channel;
  const std::int64_t wrap = rows_before_wrap(span, texture);
  const std::int64_t rows = wrap < span.rows ? wrap : span.rows;
  const float* from = floats_at(*texture.pool, offset_of(a, plane, span.y, 0, texture.dy, 0), rows * a.width,
                                picture_bytes(), buffer);
  if (from == buffer && rows < span.rows) {
    floats_at(*texture.pool, offset_of(a, plane, span.y + rows, 0, texture.dy, 0),
              (span.rows - rows) * a.width, picture_bytes(), buffer + rows * a.width);
  }
  stage_seams(table, seams, from, a.width);
  return from;
}

// The bytes of a part of a texture in which it does not wrap except within whole rows: in place, or in
// `rolled`.
inline const std::uint8_t* bytes_at(const ComposeArgs& a, const Texture& texture, std::int64_t channel,
                                    const Span& part, std::uint8_t* rolled) {
  const bool whole_rows = part.width == a.width;
  const std::int64_t at =
      offset_of(a, texture.first_plane + channel, part.y, part.x, texture.dy, whole_rows ? 0 : texture.dx);
  const std::uint8_t* from = static_cast<const std::uint8_t*>(texture.pool->data) + at;
  if (!whole_rows || texture.dx == 0) return from;
  copy_rolled(rolled, from, part.rows, a.width, texture.dx);
  return rolled;
}

// compose_plane where all pools are bytes. `mask` is the span's in its pool.
inline void compose_byte_plane(const ComposeArgs& a, const Span& span, std::int64_t channel,
                               const std::uint8_t* mask, const Sink& sink, const Ahead& ahead,
                               BlendBytes blend_bytes, Scratch& s) {
  const Texture f = foreground_of(a, span.sample);
  const Texture b = background_of(a, span.sample);
  const bool whole_rows = span.width == a.width;
  BytePart part{};
  part.sink = sink;
  part.form = form_of(a, channel);
  part.ahead = ahead;
  Span rest = span;
  while (rest.count() > 0) {
    const Span now = first_part(a, rest, f, b);
    part.count = now.count();
    part.mask = mask + part.at;
    part.foreground = bytes_at(a, f, channel, now, s.foreground_bytes);
    part.background = bytes_at(a, b, channel, now, s.background_bytes);
    blend_bytes(part);
    part.at += now.count();
    rest = after(rest, now, whole_rows);
  }
}

// Composes one channel of `span`, which lies within one block.
inline void compose_plane(const ComposeArgs& a, const Span& span, std::int64_t channel, const float* mask,
                          const Sink& sink, const Ahead& ahead, BlendPart blend_into, Scratch& s) {
  const Texture f = foreground_of(a, span.sample);
  const Texture b = background_of(a, span.sample);
  Part part{};
  part.sink = sink;
  part.form = form_of(a, channel);
  part.ahead = ahead;
  part.mask = mask;
  if (rolls_by_vectors(a, span, f, b)) {
    part.count = span.count();
    part.foreground = rolled_plane(a, span, f, channel, s.foreground, s.foreground_seams, s.foreground_table);
    part.background = rolled_plane(a, span, b, channel, s.background, s.background_seams, s.background_table);
    part.foreground_table = &s.foreground_table;
    part.background_table = &s.background_table;
    return blend_into(part);
  }
  const bool whole_rows = span.width == a.width;
  const bool rolled = whole_rows && (f.dx | b.dx) != 0;
  Span rest = span;
  while (rest.count() > 0) {
    const Span now = first_part(a, rest, f, b);
    part.count = now.count();
    part.mask = mask + part.at;
    const std::int64_t f_at =
        offset_of(a, f.first_plane + channel, now.y, now.x, f.dy, whole_rows ? 0 : f.dx);
    const std::int64_t b_at =
        offset_of(a, b.first_plane + channel, now.y, now.x, b.dy, whole_rows ? 0 : b.dx);
    part.foreground = floats_at(*f.pool, f_at, now.count(), picture_bytes(), s.foreground);
    part.background = floats_at(*b.pool, b_at, now.count(), picture_bytes(), s.background);
    if (rolled) {
      copy_rolled(s.foreground_seams, part.foreground, now.rows, a.width, f.dx);
      copy_rolled(s.background_seams, part.background, now.rows, a.width, b.dx);
      part.foreground = s.foreground_seams;
      part.background = s.background_seams;
    }
    blend_into(part);
    part.at += now.count();
    rest = after(rest, now, whole_rows);
  }
}

inline void compose_block(const ComposeArgs& a, const Span& span, const Span* next, BlendPart blend_into,
                          BlendBytes blend_bytes, Scratch& s) {
  const std::int64_t mask_at = offset_of(a, a.items[span.sample].mask, span.y, span.x, 0, 0);
  const bool bytes = blend_bytes != nullptr;
  const float* mask = bytes ? nullptr : floats_at(a.masks, mask_at, span.count(), mask_bytes(), s.mask);
  const Texture f = foreground_of(a, span.sample);
  const Texture b = background_of(a, span.sample);
  if (!bytes && rolls_by_vectors(a, span, f, b)) {
    fill_table(a, span, f, s.foreground_table);
    fill_table(a, span, b, s.background_table);
  }
  const BlockOut out = block_out(a, span);
  for (std::int64_t c = 0; c < a.channels; ++c) {
    const Ahead ahead = c + 1 < a.channels ? ahead_of(a, span, c + 1, false)
                        : next != nullptr  ? ahead_of(a, *next, 0, true)
                                           : Ahead{};
    const Sink sink = out.sink(c, s.planes);
    if (bytes) {
      compose_byte_plane(a, span, c, static_cast<const std::uint8_t*>(a.masks.data) + mask_at, sink, ahead,
                         blend_bytes, s);
    } else {
      compose_plane(a, span, c, mask, sink, ahead, blend_into, s);
    }
    out.finish_channel(c, s.planes);
  }
  out.finish(s.planes);
}

void compose_blocks(const ComposeArgs& a, std::int64_t first, std::int64_t last) {
  Scratch scratch;
  const BlendPart blend_into = blend_for(a);
  const BlendBytes blend_bytes = blend_bytes_for(a);
  for (std::int64_t block = first; block < last; ++block) {
    const Span span = span_of(a, block);
    Span next{};
    if (block + 1 < last) next = span_of(a, block + 1);
    compose_block(a, span, block + 1 < last ? &next : nullptr, blend_into, blend_bytes, scratch);
  }
#if defined(__AVX2__)
  if (a.streaming == Streaming::kAlways) _mm_sfence();
#endif
}

}  // namespace

const ComposeKernel kCompose = {compose_blocks};

}  // namespace CGNRT_ISA
}  // namespace cgnrt
