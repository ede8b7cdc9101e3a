#include <sstream>

#include "cuda/check.h"
#include "cuda/runtime.h"

namespace cgnrt {

CudaRuntime cuda_runtime() {
  int version = 0;
  CGNRT_CUDA_CHECK(cudaRuntimeGetVersion(&version));
  CudaRuntime runtime{std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10), 0};
  const cudaError_t status = cudaGetDeviceCount(&runtime.devices);
  if (status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver) {
    cudaGetLastError();  // no GPU is no error here: take it off the thread
    runtime.devices = 0;
  } else {
    CGNRT_CUDA_CHECK(status);
  }
  return runtime;
}

std::vector<std::string> cuda_architectures() {
  std::vector<std::string> names;
  std::istringstream list(CGNRT_CUDA_ARCHITECTURES);
  for (std::string name; std::getline(list, name, ',');) names.push_back(name);
  return names;
}

}  // namespace cgnrt
