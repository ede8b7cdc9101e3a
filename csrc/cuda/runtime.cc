#include "cuda/runtime.h"

#include <sstream>

#include "cuda/check.h"

namespace cgnrt {
namespace {

std::string version_name(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

int attribute_of(int device, cudaDeviceAttr attribute) {
  int value = 0;
  CGNRT_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

}  // namespace

CudaRuntime cuda_runtime() {
  int version = 0;
  CGNRT_CUDA_CHECK(cudaRuntimeGetVersion(&version));
  CudaRuntime found{version_name(version), "", 0};
  CGNRT_CUDA_CHECK(cudaDriverGetVersion(&version));
  if (version > 0) found.driver = version_name(version);
  const cudaError_t status = cudaGetDeviceCount(&found.devices);
  if (status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver) {
    cudaGetLastError();  // a missing GPU is not an error here: take it off the thread
    found.devices = 0;
  } else {
    CGNRT_CUDA_CHECK(status);
  }
  return found;
}

std::vector<std::string> cuda_architectures() {
  std::vector<std::string> names;
  std::istringstream list(CGNRT_CUDA_ARCHITECTURES);
  for (std::string name; std::getline(list, name, ',');) names.push_back(name);
  return names;
}

CudaDevice cuda_device(int index) {
  const DeviceGuard guard(index);
  cudaDeviceProp properties{};
  CGNRT_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
  CudaDevice found{};
  found.name = properties.name;
  found.major = attribute_of(index, cudaDevAttrComputeCapabilityMajor);
  found.minor = attribute_of(index, cudaDevAttrComputeCapabilityMinor);
  found.multiprocessors = attribute_of(index, cudaDevAttrMultiProcessorCount);
  found.l2_bytes = static_cast<std::size_t>(attribute_of(index, cudaDevAttrL2CacheSize));
  CGNRT_CUDA_CHECK(cudaMemGetInfo(&found.free_bytes, &found.memory_bytes));
  return found;
}

int set_current_device(int index) {
  int before = 0;
  CGNRT_CUDA_CHECK(cudaGetDevice(&before));
  if (index != before) CGNRT_CUDA_CHECK(cudaSetDevice(index));
  return before;
}

DeviceGuard::DeviceGuard(int index) : before_(set_current_device(index)) {}

DeviceGuard::~DeviceGuard() { cudaSetDevice(before_); }

RelaxedCapture::RelaxedCapture() noexcept { cudaThreadExchangeStreamCaptureMode(&mode_); }

RelaxedCapture::~RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }

}  // namespace cgnrt
