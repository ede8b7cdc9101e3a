// Compiled once for every instruction set; the rules at the top of compose_kernel.cc hold here too.
#include <cstring>

#include "ops/patch_grid.h"
#include "ops/pixel_runs.h"

namespace cgnrt {
namespace CGNRT_ISA {
namespace {

// Adds a row to the sums of the columns, and subtracts `leaves` unless it is null.
inline void slide(std::uint32_t* __restrict columns, const float* __restrict enters,
                  const float* __restrict leaves, std::int64_t width) {
  if (leaves == nullptr) {
    for (std::int64_t x = 0; x < width; ++x) columns[x] += fixed_point(enters[x]);
    return;
  }
  for (std::int64_t x = 0; x < width; ++x) columns[x] += fixed_point(enters[x]) - fixed_point(leaves[x]);
}

void window_sums(const float* mask, std::int64_t height, std::int64_t width, std::int64_t patch,
                 std::uint32_t* columns, std::uint64_t* prefix, std::uint64_t* sums) {
  const std::int64_t across = width - patch + 1;
  for (std::int64_t x = 0; x < width; ++x) columns[x] = 0;
  prefix[0] = 0;
  for (std::int64_t y = 0; y < height; ++y) {
    slide(columns, mask + y * width, y >= patch ? mask + (y - patch) * width : nullptr, width);
    if (y + 1 < patch) continue;
    std::uint64_t sum = 0;
    for (std::int64_t x = 0; x < width; ++x) prefix[x + 1] = sum += columns[x];
    std::uint64_t* __restrict to = sums + (y + 1 - patch) * across;
    for (std::int64_t x = 0; x < across; ++x) to[x] = prefix[x + patch] - prefix[x];
  }
}

// Row y of a sample's grid of tiles before scaling, its ends repeated as far as they are read.
inline void lay_tiles(const MosaicArgs& a, std::int64_t sample, std::int64_t c, std::int64_t y, float* to) {
  const std::int64_t* places = a.places + (sample * a.rows + y / a.tile_height) * a.columns;
  const float* plane = a.images + (a.items[sample].image * a.channels + c) * a.height * a.width;
  const float* row = plane + y % a.tile_height * a.width;
  float* tiles = to + kPadding;
  for (std::int64_t column = 0; column < a.columns; ++column) {
    std::memcpy(tiles + column * a.tile_width, row + places[column],
                static_cast<std::size_t>(a.tile_width) * sizeof(float));
  }
  float* end = tiles + a.columns * a.tile_width;
  for (std::int64_t k = 0; k < kPadding; ++k) {
    to[k] = tiles[0];
    end[k] = end[-1];
  }
}

inline float sum_of_taps(const float* from, const float* weights) {
  float value = weights[0] * from[0];
  value = value + weights[1] * from[1];
  value = value + weights[2] * from[2];
  return value + weights[3] * from[3];
}

// Products of four neighbours at a time, then four of their sums at once by a transpose: the gathers that the
// compiler makes of the plain loop took more than all the rest.
inline void scale_across(float* __restrict to, const float* __restrict row, const Axis& axis) {
  const std::int32_t* __restrict firsts = axis.firsts;
  const float* __restrict weights = axis.weights;
  const float* from = row + kPadding;
  std::int64_t x = 0;
#if defined(__AVX2__)
  for (; x + 4 <= axis.length; x += 4) {
    const float* w = weights + x * kTaps;
    __m128 p0 = _mm_mul_ps(_mm_loadu_ps(w), _mm_loadu_ps(from + firsts[x]));
    __m128 p1 = _mm_mul_ps(_mm_loadu_ps(w + 4), _mm_loadu_ps(from + firsts[x + 1]));
    __m128 p2 = _mm_mul_ps(_mm_loadu_ps(w + 8), _mm_loadu_ps(from + firsts[x + 2]));
    __m128 p3 = _mm_mul_ps(_mm_loadu_ps(w + 12), _mm_loadu_ps(from + firsts[x + 3]));
    _MM_TRANSPOSE4_PS(p0, p1, p2, p3);
    _mm_storeu_ps(to + x, _mm_add_ps(_mm_add_ps(_mm_add_ps(p0, p1), p2), p3));
  }
#endif
  for (; x < axis.length; ++x) to[x] = sum_of_taps(from + firsts[x], weights + x * kTaps);
}

inline void scale_down(float* __restrict to, const float* const rows[kTaps], const float* weights,
                       std::int64_t length) {
  const float* __restrict r0 = rows[0];
  const float* __restrict r1 = rows[1];
  const float* __restrict r2 = rows[2];
  const float* __restrict r3 = rows[3];
  const float w0 = weights[0], w1 = weights[1], w2 = weights[2], w3 = weights[3];
  for (std::int64_t x = 0; x < length; ++x) {
    float value = w0 * r0[x];
    value = value + w1 * r1[x];
    value = value + w2 * r2[x];
    to[x] = value + w3 * r3[x];
  }
}

// What follows the scaling, in the order of compose: blend, clamp, scale and bias.
inline void finish(const MosaicArgs& a, const MosaicItem& item, std::int64_t c, std::int64_t y,
                   float* __restrict line) {
  const std::int64_t width = a.across.length;
  if (a.masks != nullptr) {
    const std::int64_t plane = a.down.length * width;
    const float* __restrict mask = a.masks + item.mask * plane + y * width;
    const float* __restrict background =
        a.backgrounds + (item.background * a.channels + c) * plane + y * width;
    for (std::int64_t x = 0; x < width; ++x) line[x] = blend(mask[x], line[x], background[x]);
  }
  if (a.clamp) {
    const float low = a.clamp_low, high = a.clamp_high;
    for (std::int64_t x = 0; x < width; ++x) line[x] = clamp_to(line[x], low, high);
  }
  if (a.scale != nullptr || a.bias != nullptr) {
    // As in compose: a product with 1 and a sum with -0 change no bit.
    const float scale = a.scale != nullptr ? a.scale[c] : 1.0f;
    const float bias = a.bias != nullptr ? a.bias[c] : -0.0f;
    for (std::int64_t x = 0; x < width; ++x) line[x] = line[x] * scale + bias;
  }
}

inline void put(const MosaicArgs& a, std::int64_t sample, std::int64_t c, std::int64_t y, const float* line,
                unsigned char* bytes) {
  const std::int64_t width = a.across.length;
  const std::int64_t plane = a.down.length * width;
  const std::int64_t size = static_cast<std::int64_t>(size_of(a.output));
  unsigned char* out = static_cast<unsigned char*>(a.out);
  if (a.layout == Layout::kNCHW) {
    return cast_run(out + ((sample * a.channels + c) * plane + y * width) * size, line, width, a.output);
  }
  unsigned char* to = out + ((sample * plane + y * width) * a.channels + c) * size;
  cast_run(bytes, line, width, a.output);
  scatter(size, to, bytes, width, a.channels);
}

void mosaic_rows(const MosaicArgs& a, std::int64_t sample, std::int64_t first, std::int64_t last,
                 const MosaicScratch& s) {
  const std::int64_t width = a.across.length;
  for (std::int64_t i = 0; i < a.channels * kTaps; ++i) s.held[i] = -1;
  for (std::int64_t y = first; y < last; ++y) {
    const float* weights = a.down.weights + y * kTaps;
    for (std::int64_t c = 0; c < a.channels; ++c) {
      const float* rows[kTaps];
      for (int k = 0; k < kTaps; ++k) {
        // A result's rows are neighbours, or the same one at an end: no two of them share a place.
        const std::int64_t source = tap_place(a.down, y, k);
        const std::int64_t place = c * kTaps + source % kTaps;
        if (s.held[place] != source) {
          lay_tiles(a, sample, c, source, s.row);
          scale_across(s.scaled + place * width, s.row, a.across);
          s.held[place] = source;
        }
        rows[k] = s.scaled + place * width;
      }
      scale_down(s.line, rows, weights, width);
      finish(a, a.items[sample], c, y, s.line);
      put(a, sample, c, y, s.line, s.bytes);
    }
  }
}

}  // namespace

const PatchGridKernel kPatchGrid = {window_sums, mosaic_rows};

}  // namespace CGNRT_ISA
}  // namespace cgnrt
