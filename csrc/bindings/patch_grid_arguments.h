// Arguments that patch_grid and resize share on every device.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>

#include "ops/patch_grid_call.h"

namespace cgnrt {

// The form of the result; its device, threads and implementation stay the defaults.
MosaicForm form_argument(const std::string& operation, const pybind11::object& size,
                         const pybind11::object& dtype, const pybind11::object& layout,
                         const pybind11::object& scale, const pybind11::object& bias,
                         const pybind11::object& clamp);

// Fills in patch, grid and top.
void set_windows(PatchGridCall& call, const pybind11::object& patch, const pybind11::object& grid,
                 const pybind11::object& top);

// (masks, backgrounds).
std::pair<pybind11::object, pybind11::object> over_argument(const pybind11::object& over);

}  // namespace cgnrt
