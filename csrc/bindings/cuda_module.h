#pragma once

#include <pybind11/pybind11.h>

namespace cgnrt {

void bind_cuda_arrays(pybind11::module_& module);
void bind_cuda_compose(pybind11::module_& module);
void bind_cuda_noise(pybind11::module_& module);
void bind_cuda_patch_grid(pybind11::module_& module);
void bind_cuda_streams(pybind11::module_& module);

}  // namespace cgnrt
