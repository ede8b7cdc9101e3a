// The place of an object: how its mask and its foreground are mirrored, scaled and moved before the blend.
// The arithmetic is the same in every variant, in float32, each operation rounded.
#pragma once

#include <cstdint>

#include "common/scalar.h"

namespace cgnrt {

// Mirrored left to right and scaled about the middle of the picture, then moved by whole pixels or parts of
// them.
struct Place {
  float dy;
  float dx;
  float scale;
  bool flip;
};

constexpr std::int64_t kPlaceNumbers = 4;  // of a row of the argument: dy, dx, scale, flip

// Up to this many pixels float32 holds every coordinate, and halves of it.
constexpr std::int64_t kMaxPlacedExtent = 1 << 22;

CGNRT_HD bool is_place(float dy, float dx, float scale, float flip) {
  // The difference of a number and itself is 0 if it is finite.
  return dy - dy == 0.0f && dx - dx == 0.0f && scale - scale == 0.0f && scale > 0.0f &&
         (flip == 0.0f || flip == 1.0f);
}

// Where row or column `at` of the result comes from, as a number of the picture's rows or columns.
CGNRT_HD float source_of(std::int64_t at, std::int64_t extent, float shift, float scale, bool flip) {
  const float middle = static_cast<float>(extent - 1) * 0.5f;
  const float from = (static_cast<float>(at) - middle - shift) / scale;
  return (flip ? -from : from) + middle;
}

// false: from outside the picture, where there is no object.
CGNRT_HD bool is_inside(float source, std::int64_t extent) {
  return source >= -0.5f && source <= static_cast<float>(extent - 1) + 0.5f;
}

// The same number for the outer halves of the outermost pixels.
CGNRT_HD float clamp_source(float source, std::int64_t extent) {
  const float last = static_cast<float>(extent - 1);
  source = source > 0.0f ? source : 0.0f;
  return source < last ? source : last;
}

// A row or a column between `first` and the one after it.
struct Tap {
  bool inside;
  std::int32_t first;
  float weight;  // of the one after it; where it is 0, that is not read, and need not exist
};

CGNRT_HD Tap tap_of(std::int64_t at, std::int64_t extent, float shift, float scale, bool flip) {
  const float source = source_of(at, extent, shift, scale, flip);
  if (!is_inside(source, extent)) return {false, 0, 0.0f};
  const float from = clamp_source(source, extent);
  const auto first = static_cast<std::int32_t>(from);
  return {true, first, from - static_cast<float>(first)};
}

// A value between two neighbours: first between rows, then between columns.
CGNRT_HD float between(float first, float second, float weight) {
  const float mixed = first + weight * (second - first);
  return weight == 0.0f ? first : mixed;
}

}  // namespace cgnrt
