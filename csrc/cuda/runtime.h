// What the CUDA part of this build is. The runtime is linked statically: the module loads on a machine
// without a driver.
#pragma once

#include <string>
#include <vector>

namespace cgnrt {

struct CudaRuntime {
  std::string version;  // "13.0"
  int devices;          // 0 where there is no driver or no GPU
};

CudaRuntime cuda_runtime();

// The architectures compiled for, as CMake names them ("80-real", "90").
std::vector<std::string> cuda_architectures();

}  // namespace cgnrt
