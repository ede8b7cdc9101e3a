#include <cmath>
#include <sstream>

#include "common/tensor.h"
#include "ops/pixels.h"

namespace cgnrt {
namespace {

void require_channels(const std::string& operation, const std::string& name, const std::vector<float>& values,
                      std::int64_t channels) {
  if (values.size() > 1 && values.size() != static_cast<std::size_t>(channels)) {
    refuse(operation + " " + name, "length", std::to_string(values.size()),
           std::to_string(channels) + ", one for each channel");
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      refuse(operation + " " + name, name + "[" + std::to_string(i) + "]", std::to_string(values[i]),
             "finite");
    }
  }
}

}  // namespace

void require_form(const std::string& operation, const PixelForm& form, std::int64_t channels) {
  require_channels(operation, "scale", form.scale, channels);
  require_channels(operation, "bias", form.bias, channels);
  if (form.clamp && !(form.clamp->first <= form.clamp->second)) {
    std::ostringstream got;
    got << "(" << form.clamp->first << ", " << form.clamp->second << ")";
    refuse(operation + " clamp", "range", got.str(), "(low, high) with low <= high");
  }
}

std::vector<std::int64_t> batch_shape(const PixelForm& form, std::int64_t n, std::int64_t channels,
                                      std::int64_t height, std::int64_t width) {
  if (form.layout == Layout::kNHWC) return {n, height, width, channels};
  return {n, channels, height, width};
}

PixelForm for_each_channel(PixelForm form, std::int64_t channels) {
  for (std::vector<float>* values : {&form.scale, &form.bias}) {
    if (values->size() == 1) values->resize(static_cast<std::size_t>(channels), values->front());
  }
  return form;
}

PixelCast cast_of(const PixelForm& form) {
  const auto [low, high] = form.clamp.value_or(std::make_pair(0.0f, 0.0f));
  return {form.output, form.layout, form.clamp.has_value(), low, high};
}

PixelFinish finish_of(const PixelForm& form) {
  PixelFinish finish{};
  static_cast<PixelCast&>(finish) = cast_of(form);
  finish.scale = form.scale.empty() ? nullptr : form.scale.data();
  finish.bias = form.bias.empty() ? nullptr : form.bias.data();
  return finish;
}

}  // namespace cgnrt
