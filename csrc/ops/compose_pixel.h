// The arithmetic of one value, in float32 and in this order: what every variant of compose computes.
#pragma once

#include "common/hd.h"

namespace cgnrt {

// Two products and one sum, each rounded: the ops are compiled with -ffp-contract=off.
CGNRT_HD float blend(float mask, float foreground, float background) {
  const float covered = mask * foreground;
  const float uncovered = (1.0f - mask) * background;
  return covered + uncovered;
}

// A NaN passes through.
CGNRT_HD float clamp_to(float value, float low, float high) {
  const float raised = value < low ? low : value;
  return raised > high ? high : raised;
}

}  // namespace cgnrt
