// What the validators of several ops check alike. `subject` begins the message ("compose scale"), and its
// last word is the field's name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/tensor.h"

namespace cgnrt {

// A tensor on the device that the call is to run on. To be asked first: of a tensor elsewhere nothing else is
// known.
void require_device(const std::string& subject, const Tensor& t, const Device& device);

// Rows of integers: (any, rest...) int32 or int64.
void require_rows(const std::string& subject, const Tensor& t, const std::vector<std::int64_t>& rest,
                  const char* rule);

// Finite numbers: none, one, or one for each channel.
void require_channels(const std::string& subject, const std::vector<float>& values, std::int64_t channels);

void require_clamp(const std::string& subject, const std::optional<std::pair<float, float>>& clamp);

// Number `at` of an int32 or int64 tensor.
std::int64_t integer_at(const Tensor& t, std::int64_t at);

// One value for each channel, or none.
std::vector<float> per_channel(const std::vector<float>& values, std::int64_t channels);

}  // namespace cgnrt
