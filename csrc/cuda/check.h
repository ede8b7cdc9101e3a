// Every CUDA call is checked: an error becomes an exception with the call, file and line.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace cgnrt {

// An error of the CUDA runtime or the driver.
class CudaError : public std::runtime_error {
 public:
  CudaError(cudaError_t status, const std::string& message) : std::runtime_error(message), status(status) {}
  const cudaError_t status;
};

inline void cuda_check(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears it, so that later calls do not report it, if the device still works
  throw CudaError(status, std::string(call) + ": " + cudaGetErrorName(status) + " (" +
                              cudaGetErrorString(status) + ") at " + file + ":" + std::to_string(line));
}

}  // namespace cgnrt

#define CGNRT_CUDA_CHECK(call) ::cgnrt::cuda_check((call), #call, __FILE__, __LINE__)
