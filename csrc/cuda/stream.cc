#include "cuda/stream.h"

#include <cstdint>
#include <limits>

#include "cuda/check.h"
#include "cuda/runtime.h"

namespace cgnrt {

Event::Event(bool timing) {
  CGNRT_CUDA_CHECK(cudaEventCreateWithFlags(&handle_, timing ? cudaEventDefault : cudaEventDisableTiming));
}

Event::~Event() { cudaEventDestroy(handle_); }

void Event::record(cudaStream_t stream) { CGNRT_CUDA_CHECK(cudaEventRecord(handle_, stream)); }

bool Event::query() const {
  const cudaError_t status = cudaEventQuery(handle_);
  if (status == cudaErrorNotReady) {
    cudaGetLastError();  // an answer, no error
    return false;
  }
  CGNRT_CUDA_CHECK(status);
  return true;
}

void Event::synchronize() const { CGNRT_CUDA_CHECK(cudaEventSynchronize(handle_)); }

float Event::milliseconds_since(const Event& earlier) const {
  float milliseconds = 0;
  CGNRT_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, earlier.handle_, handle_));
  return milliseconds;
}

std::shared_ptr<Stream> Stream::create(int device, bool high_priority) {
  const DeviceGuard guard(device);
  int least = 0, greatest = 0;
  CGNRT_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.handleTypes = cudaMemHandleTypeNone;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  CGNRT_CUDA_CHECK(cudaMemPoolCreate(&pool, &properties));
  std::uint64_t keep_all = std::numeric_limits<std::uint64_t>::max();
  cudaStream_t handle = nullptr;
  try {
    CGNRT_CUDA_CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep_all));
    // Priorities run from `least`, which is also the default, down to `greatest`: none is lower than the
    // default.
    CGNRT_CUDA_CHECK(
        cudaStreamCreateWithPriority(&handle, cudaStreamNonBlocking, high_priority ? greatest : least));
  } catch (...) {
    cudaMemPoolDestroy(pool);
    throw;
  }
  return std::shared_ptr<Stream>(new Stream(device, handle, pool, true));
}

std::shared_ptr<Stream> Stream::borrow(int device, cudaStream_t handle) {
  const DeviceGuard guard(device);
  cudaMemPool_t pool = nullptr;
  CGNRT_CUDA_CHECK(cudaDeviceGetDefaultMemPool(&pool, device));
  return std::shared_ptr<Stream>(new Stream(device, handle, pool, false));
}

Stream::~Stream() {
  if (!owns_) return;
  // Errors have nowhere to go here; after the runtime's end they are to be expected.
  int before = 0;
  cudaGetDevice(&before);
  cudaSetDevice(device_);
  cudaStreamDestroy(handle_);  // what it was given still finishes
  cudaMemPoolDestroy(pool_);   // memory goes when its last allocation does
  cudaSetDevice(before);
}

void Stream::synchronize() const {
  const DeviceGuard guard(device_);
  CGNRT_CUDA_CHECK(cudaStreamSynchronize(handle_));
}

std::shared_ptr<Event> Stream::record(bool timing) {
  const DeviceGuard guard(device_);
  auto event = std::make_shared<Event>(timing);
  event->record(handle_);
  return event;
}

void Stream::wait(const Event& event) {
  const DeviceGuard guard(device_);
  CGNRT_CUDA_CHECK(cudaStreamWaitEvent(handle_, event.handle(), 0));
}

void Stream::wait_for(cudaStream_t other) {
  if (other == handle_) return;
  const DeviceGuard guard(device_);
  Event event;
  event.record(other);
  CGNRT_CUDA_CHECK(cudaStreamWaitEvent(handle_, event.handle(), 0));
}

void Stream::trim(std::size_t bytes_to_keep) { CGNRT_CUDA_CHECK(cudaMemPoolTrimTo(pool_, bytes_to_keep)); }

}  // namespace cgnrt
