// Arguments that the ops on pictures share. `subject` begins the message ("compose dtype").
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bindings/exchange.h"
#include "common/dtype.h"
#include "ops/compose.h"

namespace cgnrt {

// An output dtype: "float32", "float16", "bfloat16" or "uint8".
DType dtype_argument(const pybind11::object& object, const std::string& subject);

// "NCHW" or "NHWC".
Layout layout_argument(const pybind11::object& object, const std::string& subject);

// None, or (low, high).
std::optional<std::pair<float, float>> clamp_argument(const pybind11::object& object,
                                                      const std::string& subject);

// None: nothing.
std::unique_ptr<Borrowed> borrow_optional(const pybind11::object& object, const std::string& subject);

}  // namespace cgnrt
