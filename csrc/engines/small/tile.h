// The matrix tile and bordered pictures. Included by small_kernel.cc only, once for every
// instruction set.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engines/small/generator.h"
#include "engines/vectors.h"

namespace cgnrt {
namespace small {
namespace CGNRT_ISA {
namespace {

using namespace cgnrt::CGNRT_ISA;

// A tile's vectors are of positions, its rows output channels.
static_assert(kRows == kGroup, "the linear layer's tiles have a row for each image of a group");

// c[m] = start[m] + sum over k of a[k][m] * b[k], m < Rows, rows of kTile positions. Without kStart from
// zero.
template <int Rows, bool kStart>
inline void multiply_tile(const float* a, const float* b, int depth, const float* start, float* c) {
  Wide sum[Rows][2];
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
    sum[m][0] = kStart ? load_wide(start + m * kTile) : Wide{};
    sum[m][1] = kStart ? load_wide(start + m * kTile + kWide) : Wide{};
  }
  for (int k = 0; k < depth; ++k) {
    const Wide b0 = load_wide(b + k * kTile);
    const Wide b1 = load_wide(b + k * kTile + kWide);
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
      const Wide factor = spread(a[k * Rows + m]);
      sum[m][0] += factor * b0;
      sum[m][1] += factor * b1;
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
    store_wide(c + m * kTile, sum[m][0]);
    store_wide(c + m * kTile + kWide, sum[m][1]);
  }
}

// Rows of the next block when `left` output channels remain: never a block of few rows where two of more
// would do.
inline int block_rows(int left) { return left == 8 ? 4 : left == 7 ? 4 : std::min(left, kRows); }

template <bool kStart>
inline void multiply_block(int rows, const float* a, const float* b, int depth, const float* start,
                           float* c) {
  switch (rows) {
    case 6:
      return multiply_tile<6, kStart>(a, b, depth, start, c);
    case 5:
      return multiply_tile<5, kStart>(a, b, depth, start, c);
    case 4:
      return multiply_tile<4, kStart>(a, b, depth, start, c);
    case 3:
      return multiply_tile<3, kStart>(a, b, depth, start, c);
    case 2:
      return multiply_tile<2, kStart>(a, b, depth, start, c);
    default:
      return multiply_tile<1, kStart>(a, b, depth, start, c);
  }
}

template <bool kStart>
void multiply(const float* weight, const float* panel, int depth, int rows, const float* start, float* c) {
  for (int m = 0; m < rows;) {
    const int block = block_rows(rows - m);
    multiply_block<kStart>(block, weight, panel, depth, start + m * kTile, c + m * kTile);
    weight += static_cast<std::size_t>(depth) * block;
    m += block;
  }
}

// (rows, depth) as blocks of [depth][rows of the block].
float* pack_rows(const std::vector<float>& matrix, int rows, int depth, float* to) {
  for (int m = 0; m < rows;) {
    const int block = block_rows(rows - m);
    for (int k = 0; k < depth; ++k) {
      for (int r = 0; r < block; ++r) *to++ = matrix[static_cast<std::size_t>(m + r) * depth + k];
    }
    m += block;
  }
  return to;
}

// A picture with a border.
struct View {
  float* data;
  PictureShape shape;
  int pad;
  std::int64_t stride() const { return shape.width + 2 * pad; }
  float* row(int channel, int y) const {
    return data + (static_cast<std::int64_t>(channel) * (shape.height + 2 * pad) + y + pad) * stride() + pad;
  }
};

void clear_border(const View& v) {
  if (v.pad == 0) return;
  for (int c = 0; c < v.shape.channels; ++c) {
    std::fill_n(v.row(c, -1) - 1, v.stride(), 0.0f);
    std::fill_n(v.row(c, v.shape.height) - 1, v.stride(), 0.0f);
    for (int y = 0; y < v.shape.height; ++y) v.row(c, y)[-1] = v.row(c, y)[v.shape.width] = 0;
  }
}

// The picture on a torus: beyond each side lies the opposite one.
void wrap_border(const View& v) {
  const int height = v.shape.height;
  const int width = v.shape.width;
  for (int c = 0; c < v.shape.channels; ++c) {
    for (int y = 0; y < height; ++y) {
      float* const row = v.row(c, y);
      row[-1] = row[width - 1];
      row[width] = row[0];
    }
    std::copy_n(v.row(c, height - 1) - 1, v.stride(), v.row(c, -1) - 1);
    std::copy_n(v.row(c, 0) - 1, v.stride(), v.row(c, height) - 1);
  }
}

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace small
}  // namespace cgnrt
