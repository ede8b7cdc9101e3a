#include "ops/checks.h"

#include <algorithm>
#include <cmath>
#include <sstream>

namespace cgnrt {

void require_device(const std::string& subject, const Tensor& t, const Device& device) {
  if (t.device.name != device.name) refuse(subject, "device", t.device.name, device.name);
}

void require_rows(const std::string& subject, const Tensor& t, const std::vector<std::int64_t>& rest,
                  const char* rule) {
  if (t.dtype != DType::kInt32 && t.dtype != DType::kInt64)
    refuse(subject, "dtype", t.dtype_name, "int32 or int64");
  if (t.shape.size() != rest.size() + 1 || !std::equal(rest.begin(), rest.end(), t.shape.begin() + 1)) {
    refuse(subject, "shape", to_string(t.shape), rule);
  }
  require_plain(subject, t);
}

void require_channels(const std::string& subject, const std::vector<float>& values, std::int64_t channels) {
  if (values.size() > 1 && values.size() != static_cast<std::size_t>(channels)) {
    refuse(subject, "length", std::to_string(values.size()),
           std::to_string(channels) + ", one for each channel");
  }
  const std::string name = subject.substr(subject.rfind(' ') + 1);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      refuse(subject, name + "[" + std::to_string(i) + "]", std::to_string(values[i]), "finite");
    }
  }
}

void require_clamp(const std::string& subject, const std::optional<std::pair<float, float>>& clamp) {
  if (clamp && !(clamp->first <= clamp->second)) {
    std::ostringstream got;
    got << "(" << clamp->first << ", " << clamp->second << ")";
    refuse(subject, "range", got.str(), "(low, high) with low <= high");
  }
}

std::int64_t integer_at(const Tensor& t, std::int64_t at) {
  if (t.dtype == DType::kInt64) return static_cast<const std::int64_t*>(t.data)[at];
  return static_cast<const std::int32_t*>(t.data)[at];
}

std::vector<float> per_channel(const std::vector<float>& values, std::int64_t channels) {
  if (values.size() == 1) return std::vector<float>(static_cast<std::size_t>(channels), values[0]);
  return values;
}

}  // namespace cgnrt
