// What the CUDA part of this build is, and the devices. The runtime is linked statically: the module loads on
// a machine without a driver.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <vector>

namespace cgnrt {

struct CudaRuntime {
  std::string runtime;  // "13.0", what this was built with
  std::string driver;   // the newest CUDA that the driver runs; empty without a driver
  int devices;          // 0 where there is no driver, one too old, or no GPU
};

CudaRuntime cuda_runtime();

// The architectures compiled for, as CMake names them ("80-real", "90").
std::vector<std::string> cuda_architectures();

struct CudaDevice {
  std::string name;
  int major;  // compute capability
  int minor;
  int multiprocessors;
  std::size_t l2_bytes;
  std::size_t memory_bytes;
  std::size_t free_bytes;
};

// Throws CudaError, also for an index beyond the devices.
CudaDevice cuda_device(int index);

// Makes a device this thread's current one; returns the one before. Throws CudaError.
int set_current_device(int index);

// Makes a device current for as long as this lives. Throws CudaError.
class DeviceGuard {
 public:
  explicit DeviceGuard(int index);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
};

// Lets this thread make and free what is in no stream's order while it captures a stream: CUDA would refuse
// that and break the capture.
class RelaxedCapture {
 public:
  RelaxedCapture() noexcept;
  ~RelaxedCapture();
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

}  // namespace cgnrt
