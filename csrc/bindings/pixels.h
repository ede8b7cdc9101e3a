// Arguments that the ops on pictures share. `subject` begins the message ("compose dtype").
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bindings/arguments.h"
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

// Sets the fields that the forms of all ops' pixels have: output, layout, scale, bias and clamp.
template <typename Form>
void read_form(Form& form, const std::string& operation, const pybind11::object& dtype,
               const pybind11::object& layout, const pybind11::object& scale, const pybind11::object& bias,
               const pybind11::object& clamp) {
  form.output = dtype_argument(dtype, operation + " dtype");
  form.layout = layout_argument(layout, operation + " layout");
  form.scale = floats_argument(scale, operation + " scale");
  form.bias = floats_argument(bias, operation + " bias");
  form.clamp = clamp_argument(clamp, operation + " clamp");
}

// None: nothing.
std::unique_ptr<Borrowed> borrow_optional(const pybind11::object& object, const std::string& subject);

}  // namespace cgnrt
