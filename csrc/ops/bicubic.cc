#include "ops/bicubic.h"

#include <algorithm>
#include <cmath>

namespace cgnrt {
namespace {

constexpr float kA = -0.75f;

float near(float x) { return ((kA + 2.0f) * x - (kA + 3.0f)) * x * x + 1.0f; }         // |x| <= 1
float far(float x) { return ((kA * x - 5.0f * kA) * x + 8.0f * kA) * x - 4.0f * kA; }  // 1 <= |x| <= 2

}  // namespace

BicubicTaps bicubic_taps(std::int64_t from, std::int64_t to) {
  BicubicTaps taps;
  taps.places.resize(static_cast<std::size_t>(kTaps * to));
  taps.weights.resize(static_cast<std::size_t>(kTaps * to));
  const float scale = static_cast<float>(from) / static_cast<float>(to);
  for (std::int64_t x = 0; x < to; ++x) {
    const float place = scale * (static_cast<float>(x) + 0.5f) - 0.5f;
    const std::int64_t first = static_cast<std::int64_t>(std::floor(place));
    const float t = std::clamp(place - static_cast<float>(first), 0.0f, 1.0f);
    const float weights[kTaps] = {far(t + 1.0f), near(t), near(1.0f - t), far(2.0f - t)};
    for (int k = 0; k < kTaps; ++k) {
      const std::int64_t clamped = std::clamp<std::int64_t>(first - 1 + k, 0, from - 1);
      taps.places[static_cast<std::size_t>(k * to + x)] = static_cast<std::int32_t>(clamped);
      taps.weights[static_cast<std::size_t>(k * to + x)] = weights[k];
    }
  }
  return taps;
}

}  // namespace cgnrt
