// The matrix tile, and what happens to a result on its way to memory. Included by kernel.cc alone, once for
// every instruction set.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/vectors.h"
#include "deep/kernel.h"

namespace cgnrt {
namespace deep {
namespace CGNRT_ISA {
namespace {

using namespace cgnrt::CGNRT_ISA;

// A matrix tile is up to kRows pixels by two vectors of output channels: as many sums as keep both
// multipliers busy and still fit the registers.
constexpr int kTile = 2 * kWide;
constexpr int kRows = 6;
constexpr int kMostTaps = 9;

inline int panels_of(int channels) { return (channels + kTile - 1) / kTile; }

// c[m] = sum over taps t and k < depth of a[t * kRows + m][k] * b[t * depth + k], rows of kTile channels.
// Never inlined: a caller's constants would take registers from the sums, and one sum in memory halves the
// speed.
template <int Rows>
__attribute__((noinline)) void multiply(const float* const* a, int taps, int depth, const float* b,
                                        float* c) {
  Wide sum[Rows][2] = {};
  for (int t = 0; t < taps; ++t) {
    const float* row[Rows];
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) row[m] = a[t * kRows + m];
#pragma GCC unroll 4
    for (int k = 0; k < depth; ++k) {
      const Wide b0 = load_wide(b);
      const Wide b1 = load_wide(b + kWide);
      b += kTile;
#pragma GCC unroll 8
      for (int m = 0; m < Rows; ++m) {
        const Wide factor = spread(row[m][k]);
        sum[m][0] += factor * b0;
        sum[m][1] += factor * b1;
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
    store_wide(c + m * kTile, sum[m][0]);
    store_wide(c + m * kTile + kWide, sum[m][1]);
  }
}

inline void multiply_rows(int rows, const float* const* a, int taps, int depth, const float* b, float* c) {
  switch (rows) {
    case 6:
      return multiply<6>(a, taps, depth, b, c);
    case 5:
      return multiply<5>(a, taps, depth, b, c);
    case 4:
      return multiply<4>(a, taps, depth, b, c);
    case 3:
      return multiply<3>(a, taps, depth, b, c);
    case 2:
      return multiply<2>(a, taps, depth, b, c);
    default:
      return multiply<1>(a, taps, depth, b, c);
  }
}

inline Run activate(const Act& act, Run v) {
  switch (act.kind) {
    case Activation::kNone:
      return v;
    case Activation::kLeakyRelu:
      return act.low == 0 ? larger(v, Run{}) : leaky(v, act.low);
    case Activation::kTanh:
      return hyperbolic_tangent(v);
    case Activation::kSigmoid:
      return logistic(v);
    default:
      return smaller(larger(v, all(act.low)), all(act.high));
  }
}

// Where a pixel's result goes and what it meets there; pointers to the pixel's first channel.
struct Place {
  float* out;
  const float* residual;
  std::int64_t map;  // offset of its image in scales and shifts
};

struct Finish {
  const Frame& frame;
  const Step& step;
  Picture out;
  Picture residual;
  float* out_data;
  const float* residual_data = nullptr;
  int lines;

  explicit Finish(const Frame& f)
      : frame(f), step(*f.step), out(f.out()), out_data(f.data(out)), lines(whole_lines(out.channels)) {
    if (step.residual >= 0) {
      residual = f.network->pictures[step.residual];
      residual_data = f.data(residual);
    }
  }

  Place place(std::int64_t image, int y, int x) const {
    Place p{out_data + ((image * out.height + y) * out.width + x) * out.stride, nullptr, image * lines};
    if (residual_data != nullptr) {
      const int half = step.residual_up ? 1 : 0;
      const std::int64_t row = image * residual.height + (y >> half);
      p.residual = residual_data + (row * residual.width + (x >> half)) * residual.stride;
    }
    return p;
  }

  void operator()(const Place& p, int channel, Run v) const {
    if (frame.after.scale != nullptr) v *= load(frame.after.scale + p.map + channel);
    if (frame.after.shift != nullptr) v += load(frame.after.shift + p.map + channel);
    v = activate(step.after.act, v);
    if (p.residual != nullptr) v += load(p.residual + channel);
    if (frame.last.scale != nullptr) v *= load(frame.last.scale + p.map + channel);
    if (frame.last.shift != nullptr) v += load(frame.last.shift + p.map + channel);
    store(p.out + channel, activate(step.last.act, v));
  }
};

// Row `at` of a picture's pixels, all images one behind the other.
struct PixelAt {
  std::int64_t image;
  int y, x;
};

inline PixelAt pixel_at(std::int64_t at, int height, int width) {
  const std::int64_t line = at / width;
  return {line / height, static_cast<int>(line % height), static_cast<int>(at % width)};
}

// Pixel (y, x) of an image, or zeros outside.
inline const float* pixel_or_zeros(const Frame& f, const Picture& p, const float* data, std::int64_t image,
                                   int y, int x) {
  if (y < 0 || x < 0 || y >= p.height || x >= p.width) return f.zeros;
  return data + ((image * p.height + y) * p.width + x) * p.stride;
}

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace deep
}  // namespace cgnrt
