#include "ops/bicubic.h"

namespace cgnrt {

BicubicTaps bicubic_taps(std::int64_t from, std::int64_t to) {
  BicubicTaps taps;
  taps.source = from;
  const double scale = bicubic_scale(from, to);
  for (std::int64_t x = 0; x < to; ++x) {
    const BicubicTap tap = bicubic_tap(from, scale, x);
    taps.firsts.push_back(tap.first);
    taps.weights.insert(taps.weights.end(), tap.weights, tap.weights + kTaps);
  }
  return taps;
}

}  // namespace cgnrt
