// The form in which pixels leave, as a kernel reads it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "common/tensor.h"
#include "ops/pixels.h"

namespace cgnrt {

constexpr int kMaxDeviceChannels = 16;  // scale and bias are passed with the launch

struct DeviceFinish : PixelCast {
  bool has_scale;
  bool has_bias;
  float scale[kMaxDeviceChannels];
  float bias[kMaxDeviceChannels];
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
  static_cast<PixelCast&>(finish) = cast_of(form);
  finish.has_scale = !form.scale.empty();
  finish.has_bias = !form.bias.empty();
  std::copy(form.scale.begin(), form.scale.end(), finish.scale);
  std::copy(form.bias.begin(), form.bias.end(), finish.bias);
  return finish;
}

}  // namespace cgnrt
