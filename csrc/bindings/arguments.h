// Python arguments other than tensors, refused by name. `subject` begins the message ("compose threads").
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "ops/pixels.h"

namespace cgnrt {

// Anything with __index__, within low..high.
std::int64_t integer_argument(const pybind11::handle& object, const std::string& subject, std::int64_t low,
                              std::int64_t high);

// Anything with __index__, within 0..2^64-1.
std::uint64_t seed_argument(const pybind11::handle& object, const std::string& subject);

// None: empty; a number: one value; a sequence of numbers: its values.
std::vector<float> floats_argument(const pybind11::handle& object, const std::string& subject);

// The position of a string among `choices`.
std::size_t choice_argument(const pybind11::handle& object, const std::string& subject,
                            const std::vector<std::string>& choices);

// The arguments that all ops on pictures share. `dtype` is "float32", "float16", "bfloat16" or "uint8",
// `layout` "NCHW" or "NHWC", `clamp` None or (low, high).
PixelForm form_argument(const std::string& operation, const pybind11::object& dtype,
                        const pybind11::object& layout, const pybind11::object& scale,
                        const pybind11::object& bias, const pybind11::object& clamp);

// Whether the object is a sequence with a length (not a 0-d array).
bool has_length(const pybind11::handle& object);

}  // namespace cgnrt
