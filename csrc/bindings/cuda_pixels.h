// What the ops on pictures hand to a GPU alike.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "common/tensor.h"
#include "cuda/compose.h"
#include "ops/checks.h"

namespace cgnrt {

// `subject` is the tensor that has the channels ("compose foregrounds").
inline void require_device_channels(const std::string& subject, std::int64_t channels) {
  if (channels <= kMaxDeviceChannels) return;
  refuse(subject, "channels", std::to_string(channels),
         "at most " + std::to_string(kMaxDeviceChannels) + " on a GPU",
         "Give some of them at a time, or use the CPU.");
}

// Sets the fields of a device's arguments that are those of the call's form.
template <typename Args, typename Form>
void give_form(Args& args, const Form& form, std::int64_t channels) {
  const std::vector<float> scale = per_channel(form.scale, channels);
  const std::vector<float> bias = per_channel(form.bias, channels);
  args.has_scale = !scale.empty();
  args.has_bias = !bias.empty();
  std::copy(scale.begin(), scale.end(), args.scale);
  std::copy(bias.begin(), bias.end(), args.bias);
  args.output = form.output;
  args.layout = form.layout;
  args.clamp = form.clamp.has_value();
  if (form.clamp) {
    args.clamp_low = form.clamp->first;
    args.clamp_high = form.clamp->second;
  }
}

}  // namespace cgnrt
