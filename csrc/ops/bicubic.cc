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
  taps.source = from;
  // In double, so that the places of a long source are not coarser than the values.
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  for (std::int64_t x = 0; x < to; ++x) {
    const double place = scale * (static_cast<double>(x) + 0.5) - 0.5;
    const std::int64_t first =
        std::clamp<std::int64_t>(static_cast<std::int64_t>(std::floor(place)), -1, from - 1);
    const float t = static_cast<float>(std::clamp(place - static_cast<double>(first), 0.0, 1.0));
    taps.firsts.push_back(static_cast<std::int32_t>(first - 1));
    taps.weights.insert(taps.weights.end(), {far(t + 1.0f), near(t), near(1.0f - t), far(2.0f - t)});
  }
  return taps;
}

}  // namespace cgnrt
