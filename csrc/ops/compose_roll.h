// Rolled rows read in place, a vector at a time. For the files that are compiled once for every instruction
// set: the rules at the top of compose_kernel.cc hold here too.
//
// Of a row rolled by dx the first dx pixels are the row's end and the others its beginning, so all vectors of
// eight pixels but one lie in one piece somewhere in the row as stored. The one across the seam is read from
// a small copy of the row's end and beginning, side by side.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/hd.h"

namespace cgnrt {

constexpr std::int64_t kVector = 8;
constexpr std::int64_t kMaxVectors = 128;  // in a row
constexpr std::int64_t kMinRolledWidth = 2 * kVector;

// Eight floats at any address, moved as one.
typedef float Vector __attribute__((vector_size(32), aligned(4), may_alias));

CGNRT_HD void copy_vector(float* to, const float* from) {
  *reinterpret_cast<Vector*>(to) = *reinterpret_cast<const Vector*>(from);
}

// Where each vector of a rolled row begins, from the beginning of the row as stored.
struct RollTable {
  std::ptrdiff_t offsets[kMaxVectors];
  std::int64_t seam;  // the vector across the seam, or -1
  std::int64_t dx;
};

// For rows of `width` pixels, a multiple of kVector.
CGNRT_HD void fill_roll_table(RollTable& table, std::int64_t width, std::int64_t dx) {
  const std::int64_t first = dx / kVector;
  table.dx = dx;
  table.seam = dx % kVector != 0 ? first : -1;
  for (std::int64_t v = 0; v < width / kVector; ++v) {
    table.offsets[v] =
        static_cast<std::ptrdiff_t>(kVector * v - dx + (v <= first && dx > kVector * v ? width : 0));
  }
}

// Copies the seams of `rows` rows to `seams`, rows again `width` apart, and points the table there.
CGNRT_HD void stage_seams(RollTable& table, float* seams, const float* from, std::int64_t rows,
                          std::int64_t width) {
  if (table.seam < 0) return;
  for (std::int64_t row = 0; row < rows; ++row) {
    copy_vector(seams + row * width, from + row * width + width - kVector);
    copy_vector(seams + row * width + kVector, from + row * width);
  }
  const std::intptr_t distance =
      reinterpret_cast<std::intptr_t>(seams) - reinterpret_cast<std::intptr_t>(from);
  table.offsets[table.seam] = distance / static_cast<std::intptr_t>(sizeof(float)) +
                              static_cast<std::ptrdiff_t>(kVector - table.dx % kVector);
}

// The slow way, for widths that are no multiple of a vector: `rows` rolled rows, one after the other.
CGNRT_HD void copy_rolled(float* to, const float* from, std::int64_t rows, std::int64_t width,
                          std::int64_t dx) {
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t x = 0; x < dx; ++x) to[x] = from[width - dx + x];
    for (std::int64_t x = dx; x < width; ++x) to[x] = from[x - dx];
    to += width;
    from += width;
  }
}

}  // namespace cgnrt
