// Bicubic interpolation along one axis, as torch's interpolate(mode="bicubic", align_corners=False) has it:
// Keys' kernel with a = -0.75, the source clamped at its ends, no filter against aliasing.
#pragma once

#include <cstdint>
#include <vector>

#include "common/hd.h"

namespace cgnrt {

constexpr int kTaps = 4;

// Value x of the result is the sum over k, in order, of weights[x * kTaps + k] * source[firsts[x] + k], where
// places before 0 and beyond the end stand for the first and the last. firsts[x] is within -2..source - 2.
struct Axis {
  std::int64_t source;  // length of the source
  std::int64_t length;  // of the result
  const std::int32_t* firsts;
  const float* weights;
};

constexpr std::int64_t kPadding = 2;  // places that a source is read beyond its ends

// An axis with its memory.
struct BicubicTaps {
  std::int64_t source = 0;
  std::vector<std::int32_t> firsts;
  std::vector<float> weights;

  Axis axis() const {
    return {source, static_cast<std::int64_t>(firsts.size()), firsts.data(), weights.data()};
  }
};

CGNRT_HD std::int64_t tap_place(const Axis& axis, std::int64_t x, int tap) {
  const std::int64_t place = axis.firsts[x] + tap;
  const std::int64_t raised = place < 0 ? 0 : place;
  return raised < axis.source ? raised : axis.source - 1;
}

BicubicTaps bicubic_taps(std::int64_t from, std::int64_t to);

}  // namespace cgnrt
