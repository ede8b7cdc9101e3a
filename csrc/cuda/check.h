// Every CUDA call is checked: an error becomes a std::runtime_error with the call, file and line.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace cgnrt {

inline void cuda_check(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string(call) + ": " + cudaGetErrorName(status) + " (" +
                           cudaGetErrorString(status) + ") at " + file + ":" + std::to_string(line));
}

}  // namespace cgnrt

#define CGNRT_CUDA_CHECK(call) ::cgnrt::cuda_check((call), #call, __FILE__, __LINE__)
