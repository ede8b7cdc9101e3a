#include "bindings/cuda_module.h"

namespace cgnrt {

void bind_cuda_noise(pybind11::module_&) {}

}  // namespace cgnrt
