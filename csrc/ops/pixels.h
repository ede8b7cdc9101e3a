// What the ops on pictures share: the form in which pixels leave, and the arithmetic of one pixel's value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/scalar.h"

namespace cgnrt {

enum class Layout { kNCHW, kNHWC };

// The form of a batch of pictures, as a caller asks for it. Not checked yet.
struct PixelForm {
  DType output = DType::kFloat32;  // kFloat32, kFloat16, kBFloat16 or kUInt8
  Layout layout = Layout::kNCHW;
  std::vector<float> scale;                      // (channels), (1) for all channels, or empty: none
  std::vector<float> bias;                       // likewise
  std::optional<std::pair<float, float>> clamp;  // low, high
};

// The form as every device's loops read it: clamp, then scale, then bias, then cast to `output`. Scale and
// bias are read in another way on each kind of device.
struct PixelCast {
  DType output;
  Layout layout;
  bool clamp;  // to [clamp_low, clamp_high]
  float clamp_low;
  float clamp_high;
};

// On the CPU.
struct PixelFinish : PixelCast {
  const float* scale;  // (channels), or null: no multiplication
  const float* bias;   // (channels), or null: no addition
};

// Checks scale, bias and clamp. Throws std::invalid_argument.
void require_form(const std::string& operation, const PixelForm& form, std::int64_t channels);

// The shape of a batch in the form's layout.
std::vector<std::int64_t> batch_shape(const PixelForm& form, std::int64_t n, std::int64_t channels,
                                      std::int64_t height, std::int64_t width);

// The same form with a scale and a bias for each channel, where it has one at all.
PixelForm for_each_channel(PixelForm form, std::int64_t channels);

PixelCast cast_of(const PixelForm& form);

// `form` comes from for_each_channel and must outlive the result.
PixelFinish finish_of(const PixelForm& form);

// What a byte stands for: byte * scale + offset, both rounded.
struct ByteValues {
  float scale;
  float offset;
};

// Of a mask 0..1 (a sum with -0 changes nothing), of a picture -1..1. The ends are exact.
CGNRT_HD constexpr ByteValues mask_bytes() { return {1.0f / 255.0f, -0.0f}; }
CGNRT_HD constexpr ByteValues picture_bytes() { return {2.0f / 255.0f, -1.0f}; }

CGNRT_HD float value_of(float byte, const ByteValues& values) { return byte * values.scale + values.offset; }

// Eq. 2: two products and one sum, each rounded, since the ops are compiled with -ffp-contract=off.
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

// The value of one channel, finished except for the cast: for the scalar references.
CGNRT_HD float finish_value(const PixelFinish& finish, std::int64_t channel, float value) {
  if (finish.clamp) value = clamp_to(value, finish.clamp_low, finish.clamp_high);
  if (finish.scale != nullptr) value = value * finish.scale[channel];
  if (finish.bias != nullptr) value = value + finish.bias[channel];
  return value;
}

}  // namespace cgnrt
