// The form in which pixels leave, as a kernel reads it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "common/tensor.h"
#include "ops/pixels.h"

namespace cgnrt {

constexpr int kMaxDeviceChannels = 16;  // scale and bias are passed with the launch

// Clamp, then scale, then bias, then cast to `output`.
struct DeviceFinish {
  bool has_scale;
  bool has_bias;
  float scale[kMaxDeviceChannels];
  float bias[kMaxDeviceChannels];
  bool clamp;  // to [clamp_low, clamp_high]
  float clamp_low;
  float clamp_high;
  DType output;
  Layout layout;
};

// Refuses more channels than a kernel takes; `subject` is the tensor that has them ("compose foregrounds").
inline DeviceFinish device_finish(const std::string& subject, const PixelForm& given, std::int64_t channels) {
  if (channels > kMaxDeviceChannels) {
    refuse(subject, "channels", std::to_string(channels),
           "at most " + std::to_string(kMaxDeviceChannels) + " on a GPU",
           "Give some of them at a time, or use the CPU.");
  }
  const PixelForm form = for_each_channel(given, channels);
  DeviceFinish finish{};
  finish.output = form.output;
  finish.layout = form.layout;
  finish.clamp = form.clamp.has_value();
  if (form.clamp) {
    finish.clamp_low = form.clamp->first;
    finish.clamp_high = form.clamp->second;
  }
  finish.has_scale = !form.scale.empty();
  finish.has_bias = !form.bias.empty();
  std::copy(form.scale.begin(), form.scale.end(), finish.scale);
  std::copy(form.bias.begin(), form.bias.end(), finish.bias);
  return finish;
}

}  // namespace cgnrt
