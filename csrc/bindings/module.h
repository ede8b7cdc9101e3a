#pragma once

#include <pybind11/pybind11.h>

namespace cgnrt {

void bind_compose(pybind11::module_& module);
void bind_deep(pybind11::module_& module);
void bind_engine(pybind11::module_& module);
void bind_noise(pybind11::module_& module);
void bind_patch_grid(pybind11::module_& module);

}  // namespace cgnrt
