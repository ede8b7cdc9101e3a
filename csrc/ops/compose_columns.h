// The columns of a placed object: where they come from, and how they are taken out of a row. For the files
// that are compiled once for every instruction set, as compose_spans.h.
#pragma once

#include <cstdint>

#include "ops/compose.h"
#include "ops/compose_spans.h"
#include "ops/pixel_runs.h"

namespace cgnrt {
namespace CGNRT_ISA {
namespace {

// Columns of the picture that a block's columns come from, if the object is not made smaller than about half.
constexpr std::int64_t kMaxSource = 2 * kBlockPixels + 64;

constexpr std::int64_t kAligned = 16;

// Columns that are taken at once, out of twice as many side by side: by a permutation, which is several times
// as fast as loads of single values. The compiler does not find it.
#if defined(__AVX512F__)
constexpr std::int64_t kLanes = 16;
#elif defined(__AVX2__)
constexpr std::int64_t kLanes = 8;
#else
constexpr std::int64_t kLanes = 1;
#endif

// Where the columns of a span come from.
struct Columns {
  std::int64_t sample;  // of which, and from which column on: the table is kept while these are the same
  std::int64_t x;
  std::int64_t begin, end;  // those with a part of the object, relative to the span; the others have none
  std::int64_t low, count;  // the columns of the picture that they come from
  std::int64_t room;        // the same, or 2 * kLanes if those are more
  bool whole;               // they are some of those columns, in order
  bool dense;               // not more than kMaxSource columns
  bool near;                // every kLanes of them lie within 2 * kLanes columns
  std::int64_t start;       // the first of them, relative to `low`
  std::int32_t firsts[kBlockPixels + kLanes];  // from `begin` on, relative to `low`, or to their base if near
  std::int32_t bases[kBlockPixels / kLanes + 1];
  float weights[kBlockPixels + kLanes];
};

// Where the 2 * kLanes columns begin that kLanes columns are taken out of, and whether those suffice.
inline void fill_bases(Columns& columns) {
  const std::int64_t count = columns.end - columns.begin;
  const auto limit = static_cast<std::int32_t>(columns.room - 2 * kLanes);
  columns.near = kLanes > 1 && columns.dense;
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const std::int64_t end = i + kLanes < count ? i + kLanes : count;
    const std::int64_t lowest = columns.firsts[i] < columns.firsts[end - 1] ? i : end - 1;
    const std::int64_t highest = i + end - 1 - lowest;
    const std::int32_t first = columns.firsts[lowest];
    const std::int32_t base = first < limit ? first : limit;
    const std::int32_t last = columns.firsts[highest] + (columns.weights[highest] == 0.0f ? 0 : 1);
    columns.bases[i / kLanes] = base;
    columns.near = columns.near && last - base < 2 * kLanes;
    for (std::int64_t k = count; k < i + kLanes; ++k) columns.firsts[k] = base, columns.weights[k] = 0.0f;
  }
  for (std::int64_t i = 0; i < count && columns.near; i += kLanes) {
    for (std::int64_t k = i; k < i + kLanes; ++k) columns.firsts[k] -= columns.bases[i / kLanes];
  }
}

inline void fill_columns(const ComposeArgs& a, const Span& span, Columns& columns) {
  const Place& place = a.places[span.sample];
  columns.sample = span.sample;
  columns.x = span.x;
  const float dx = place.dx, scale = place.scale;
  const bool flip = place.flip;
  float sources[kBlockPixels];
  for (std::int64_t x = 0; x < span.width; ++x) sources[x] = source_of(span.x + x, a.width, dx, scale, flip);
  std::int64_t begin = 0, end = span.width;
  while (begin < end && !is_inside(sources[begin], a.width)) ++begin;
  while (end > begin && !is_inside(sources[end - 1], a.width)) --end;
  columns.begin = begin;
  columns.end = end;
  columns.low = columns.count = columns.start = 0;
  columns.room = 2 * kLanes;
  columns.dense = columns.near = columns.whole = false;
  if (begin == end) return;
  bool whole = !flip && scale == 1.0f;
  for (std::int64_t i = 0; i < end - begin; ++i) {
    const float from = clamp_source(sources[begin + i], a.width);
    columns.firsts[i] = static_cast<std::int32_t>(from);
    columns.weights[i] = from - static_cast<float>(columns.firsts[i]);
    whole = whole && columns.weights[i] == 0.0f;
  }
  const std::int64_t one = flip ? end - begin - 1 : 0, other = end - begin - 1 - one;
  // Whole vectors, as far as the row goes.
  std::int64_t low = columns.firsts[one];
  std::int64_t high = columns.firsts[other] + (columns.weights[other] == 0.0f ? 0 : 1);
  low -= low % kAligned;
  high += kAligned - high % kAligned;
  if (high > a.width) high = a.width;
  columns.low = low;
  columns.count = high - low;
  if (columns.count > columns.room) columns.room = columns.count;
  columns.dense = columns.count <= kMaxSource;
  columns.whole = columns.dense && whole;
  columns.start = columns.firsts[0] - low;
  for (std::int64_t i = 0; i < end - begin; ++i) columns.firsts[i] -= static_cast<std::int32_t>(low);
  fill_bases(columns);
}

// The columns of the table out of a row between two rows, `weight` being that of the second. Both have
// `columns.room` values. Only where the columns are near.
template <bool kBetween>
inline void take_near(float* __restrict to, const float* __restrict from, const float* __restrict next,
                      float weight, const Columns& columns) {
  const std::int64_t count = columns.end - columns.begin;
#if defined(__AVX512F__)
  const auto row_at = [&](std::int64_t at) {
    const __m512 first = _mm512_loadu_ps(from + at);
    if (!kBetween) return first;
    const __m512 change = _mm512_sub_ps(_mm512_loadu_ps(next + at), first);
    return _mm512_add_ps(first, _mm512_mul_ps(_mm512_set1_ps(weight), change));
  };
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const std::int32_t base = columns.bases[i / kLanes];
    const __m512 low = row_at(base), high = row_at(base + kLanes);
    const __m512i places = _mm512_loadu_si512(columns.firsts + i);
    const __m512 first = _mm512_permutex2var_ps(low, places, high);
    const __m512 second = _mm512_permutex2var_ps(low, _mm512_add_epi32(places, _mm512_set1_epi32(1)), high);
    const __m512 weights = _mm512_loadu_ps(columns.weights + i);
    const __mmask16 mixes = _mm512_cmp_ps_mask(weights, _mm512_setzero_ps(), _CMP_NEQ_OQ);
    const __m512 change = _mm512_mul_ps(weights, _mm512_sub_ps(second, first));
    const __m512 mixed = _mm512_mask_add_ps(first, mixes, first, change);
    const std::int64_t left = count - i;
    if (left >= kLanes) {
      _mm512_storeu_ps(to + i, mixed);
    } else {
      _mm512_mask_storeu_ps(to + i, static_cast<__mmask16>((1u << left) - 1), mixed);
    }
  }
#elif defined(__AVX2__)
  const auto row_at = [&](std::int64_t at) {
    const __m256 first = _mm256_loadu_ps(from + at);
    if (!kBetween) return first;
    const __m256 change = _mm256_sub_ps(_mm256_loadu_ps(next + at), first);
    return _mm256_add_ps(first, _mm256_mul_ps(_mm256_set1_ps(weight), change));
  };
  const auto taken = [](__m256 low, __m256 high, __m256i places) {
    const __m256 beyond = _mm256_castsi256_ps(_mm256_cmpgt_epi32(places, _mm256_set1_epi32(kLanes - 1)));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, places), _mm256_permutevar8x32_ps(high, places),
                            beyond);
  };
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const std::int32_t base = columns.bases[i / kLanes];
    const __m256 low = row_at(base), high = row_at(base + kLanes);
    const __m256i places = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns.firsts + i));
    const __m256 first = taken(low, high, places);
    const __m256 second = taken(low, high, _mm256_add_epi32(places, _mm256_set1_epi32(1)));
    const __m256 weights = _mm256_loadu_ps(columns.weights + i);
    const __m256 mixed = _mm256_add_ps(first, _mm256_mul_ps(weights, _mm256_sub_ps(second, first)));
    const __m256 stays = _mm256_cmp_ps(weights, _mm256_setzero_ps(), _CMP_EQ_OQ);
    const std::int64_t left = count - i < kLanes ? count - i : kLanes;
    const __m256i stored = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(left)), lanes);
    _mm256_maskstore_ps(to + i, stored, _mm256_blendv_ps(mixed, first, stays));
  }
#else
  static_cast<void>(to), static_cast<void>(from), static_cast<void>(next), static_cast<void>(weight);
  static_cast<void>(count);
#endif
}

// The same for any columns of one row, which has a value behind the last that is read.
inline void take_any(float* __restrict to, const float* __restrict from, const Columns& columns) {
  for (std::int64_t i = 0; i < columns.end - columns.begin; ++i) {
    const float* pair = from + columns.firsts[i];
    to[i] = between(pair[0], pair[1], columns.weights[i]);
  }
}

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace cgnrt
