// Rolled rows read in place, a vector at a time. For the files that are compiled once for every instruction
// set: the rules at the top of compose_kernel.cc hold here too.
//
// A row rolled by dx begins with the last dx pixels of the row in memory, and the others follow. So every
// vector of eight pixels is contiguous in memory, except the one across the seam, which is read from a small
// copy of the row's end and beginning, side by side.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/scalar.h"

namespace cgnrt {

constexpr std::int64_t kVector = 8;
constexpr std::int64_t kMaxVectors = 128;  // in a block
constexpr std::int64_t kMinRolledWidth = 2 * kVector;

// Eight floats at any address, moved as one.
typedef float Vector __attribute__((vector_size(32), aligned(4), may_alias));

CGNRT_HD void copy_vector(float* to, const float* from) {
  *reinterpret_cast<Vector*>(to) = *reinterpret_cast<const Vector*>(from);
}

// For each vector of a run of rolled rows, how far from its own place its pixels lie.
struct RollTable {
  std::ptrdiff_t shifts[kMaxVectors];
  std::int64_t dx;
  std::int64_t rows;
  std::int64_t rows_before_wrap;  // the rows after these lie `wrap` floats further back
  std::int64_t wrap;
};

// For `rows` rows of `width` pixels, a multiple of kVector. stage_seams does the vectors across the seam.
CGNRT_HD void fill_roll_table(RollTable& table, std::int64_t rows, std::int64_t width, std::int64_t dx,
                              std::int64_t rows_before_wrap, std::int64_t wrap) {
  const std::int64_t vectors = width / kVector;
  const std::int64_t of_end = (dx + kVector - 1) / kVector;
  table.dx = dx;
  table.rows = rows;
  table.rows_before_wrap = rows_before_wrap < rows ? rows_before_wrap : rows;
  table.wrap = wrap;
  std::int64_t v = 0;
  for (; v < of_end; ++v) table.shifts[v] = static_cast<std::ptrdiff_t>(width - dx);
  for (; v < vectors; ++v) table.shifts[v] = static_cast<std::ptrdiff_t>(-dx);
  for (; v < rows * vectors; ++v) table.shifts[v] = table.shifts[v - vectors];
  for (v = table.rows_before_wrap * vectors; v < rows * vectors; ++v) {
    table.shifts[v] -= static_cast<std::ptrdiff_t>(wrap);
  }
}

// Copies the seams of the table's rows, 2 * kVector floats each, and points the table at them.
CGNRT_HD void stage_seams(RollTable& table, float* seams, const float* from, std::int64_t width) {
  const std::int64_t before = table.dx % kVector;  // pixels of the row's end in the vector
  if (before == 0) return;
  const std::int64_t seam = table.dx / kVector;
  // From the place of the first row's seam in the rows to its vector in `seams`.
  const std::intptr_t distance = reinterpret_cast<std::intptr_t>(seams + kVector - before) -
                                 reinterpret_cast<std::intptr_t>(from + seam * kVector);
  std::ptrdiff_t* place = table.shifts + seam;
  std::ptrdiff_t shift = distance / static_cast<std::intptr_t>(sizeof(float));
  for (std::int64_t row = 0; row < table.rows; ++row) {
    if (row == table.rows_before_wrap) from -= table.wrap;
    copy_vector(seams, from + width - kVector);
    copy_vector(seams + kVector, from);
    *place = shift;
    place += width / kVector;
    seams += 2 * kVector;
    from += width;
    shift += static_cast<std::ptrdiff_t>(2 * kVector - width);
  }
}

// The slow way, for widths that are not a multiple of a vector: `rows` rolled rows, one after the other.
CGNRT_HD void copy_rolled(float* to, const float* from, std::int64_t rows, std::int64_t width,
                          std::int64_t dx) {
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t x = 0; x < dx; ++x) to[x] = from[width - dx + x];
    for (std::int64_t x = dx; x < width; ++x) to[x] = from[x - dx];
    to += width;
    from += width;
  }
}

// `count` bytes in pieces of `piece` that may overlap; at least one piece.
template <std::int64_t piece>
CGNRT_HD void copy_pieces(std::uint8_t* to, const std::uint8_t* from, std::int64_t count) {
  for (std::int64_t at = 0; at < count - piece; at += piece) std::memcpy(to + at, from + at, piece);
  std::memcpy(to + count - piece, from + count - piece, piece);
}

// A few bytes: for so few a call of memcpy costs more than they do.
CGNRT_HD void copy_bytes(std::uint8_t* to, const std::uint8_t* from, std::int64_t count) {
  if (count >= 16) return copy_pieces<16>(to, from, count);
  if (count >= 4) return copy_pieces<4>(to, from, count);
  for (std::int64_t at = 0; at < count; ++at) to[at] = from[at];
}

// The same for bytes of any width: all rows are moved as one, and then each row's shorter part is put right.
CGNRT_HD void copy_rolled(std::uint8_t* to, const std::uint8_t* from, std::int64_t rows, std::int64_t width,
                          std::int64_t dx) {
  const std::int64_t count = rows * width;
  const std::int64_t rest = width - dx;
  const bool forward = dx <= rest;
  if (forward) {
    std::memcpy(to + dx, from, static_cast<std::size_t>(count - dx));
  } else {
    std::memcpy(to, from + rest, static_cast<std::size_t>(count - rest));
  }
  for (std::int64_t row = 0; row < count; row += width) {
    if (forward) {
      copy_bytes(to + row, from + row + rest, dx);
    } else {
      copy_bytes(to + row + dx, from + row, rest);
    }
  }
}

}  // namespace cgnrt
