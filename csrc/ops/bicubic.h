// Bicubic interpolation along one axis, as torch's interpolate(mode="bicubic", align_corners=False) has it:
// Keys' kernel with a = -0.75, the source clamped at its ends, no filter against aliasing.
#pragma once

#include <cstdint>

#include "common/scalar.h"

namespace cgnrt {

constexpr int kTaps = 4;

// Value x of the result is the sum over k, in order, of weights[x * kTaps + k] * source[firsts[x] + k], where
// a place before the source or behind it means its first or last. firsts[x] is within -2..source - 2.
struct Axis {
  std::int64_t source;  // length of the source
  std::int64_t length;  // of the result
  const std::int32_t* firsts;
  const float* weights;
};

constexpr std::int64_t kPadding = 2;  // places that a source is read beyond its ends

CGNRT_HD std::int64_t tap_place(const Axis& axis, std::int64_t x, int tap) {
  const std::int64_t place = axis.firsts[x] + tap;
  const std::int64_t raised = place < 0 ? 0 : place;
  return raised < axis.source ? raised : axis.source - 1;
}

// The taps of one value: axis.firsts[x] and its weights.
struct BicubicTap {
  std::int32_t first;
  float weights[kTaps];
};

constexpr float kBicubicA = -0.75f;

CGNRT_HD float bicubic_near(float x) {  // |x| <= 1
  return ((kBicubicA + 2.0f) * x - (kBicubicA + 3.0f)) * x * x + 1.0f;
}
CGNRT_HD float bicubic_far(float x) {  // 1 <= |x| <= 2
  return ((kBicubicA * x - 5.0f * kBicubicA) * x + 8.0f * kBicubicA) * x - 4.0f * kBicubicA;
}

// The taps of value x of a result `scale` times shorter than its source of `from` values. In double: places
// in a long source would otherwise be rounded to coarse steps.
CGNRT_HD BicubicTap bicubic_tap(std::int64_t from, double scale, std::int64_t x) {
  const double place = scale * (static_cast<double>(x) + 0.5) - 0.5;
  std::int64_t first = static_cast<std::int64_t>(place);
  if (static_cast<double>(first) > place) --first;  // the conversion cuts off, and a place may be negative
  first = first < -1 ? -1 : first;
  first = first < from ? first : from - 1;
  const double rest = place - static_cast<double>(first);
  const double raised = rest < 0.0 ? 0.0 : rest;
  const float t = static_cast<float>(raised < 1.0 ? raised : 1.0);
  return {static_cast<std::int32_t>(first - 1),
          {bicubic_far(t + 1.0f), bicubic_near(t), bicubic_near(1.0f - t), bicubic_far(2.0f - t)}};
}

CGNRT_HD double bicubic_scale(std::int64_t from, std::int64_t to) {
  return static_cast<double>(from) / static_cast<double>(to);
}

}  // namespace cgnrt
