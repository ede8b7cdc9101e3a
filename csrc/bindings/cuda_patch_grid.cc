#include "bindings/cuda_module.h"

namespace cgnrt {

void bind_cuda_patch_grid(pybind11::module_&) {}

}  // namespace cgnrt
