// Bicubic interpolation along one axis, as torch's interpolate(mode="bicubic", align_corners=False) has it:
// Keys' kernel with a = -0.75, the source clamped at its ends, no filter against aliasing.
#pragma once

#include <cstdint>
#include <vector>

namespace cgnrt {

constexpr int kTaps = 4;

// Value x of the result is the sum over k, in order, of weights[k * length + x] * source[places[k * length +
// x]].
struct Axis {
  std::int64_t length;
  const std::int32_t* places;  // (kTaps, length)
  const float* weights;        // (kTaps, length)
};

// An axis with its memory.
struct BicubicTaps {
  std::vector<std::int32_t> places;
  std::vector<float> weights;

  Axis axis() const {
    return {static_cast<std::int64_t>(places.size()) / kTaps, places.data(), weights.data()};
  }
};

BicubicTaps bicubic_taps(std::int64_t from, std::int64_t to);

}  // namespace cgnrt
