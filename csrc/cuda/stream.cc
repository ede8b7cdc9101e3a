#include "cuda/stream.h"

#include <cstdint>
#include <limits>
#include <map>
#include <mutex>

#include "cuda/check.h"
#include "cuda/runtime.h"

namespace cgnrt {
namespace {

constexpr std::uint64_t kKeepAll = std::numeric_limits<std::uint64_t>::max();
constexpr std::size_t kLentShare = 16;  // of a device's memory: the part that streams of others keep

// A pool of the current device that keeps so many bytes of freed memory when somebody waits for the device.
cudaMemPool_t make_pool(int device, std::uint64_t kept_bytes) {
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.handleTypes = cudaMemHandleTypeNone;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  CGNRT_CUDA_CHECK(cudaMemPoolCreate(&pool, &properties));
  const cudaError_t status = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept_bytes);
  if (status != cudaSuccess) cudaMemPoolDestroy(pool);
  CGNRT_CUDA_CHECK(status);
  return pool;
}

// The pool of all streams of the current device that other libraries lend. The device's default pool keeps
// nothing: every wait would unmap memory, and the next call map it again. Never destroyed, since it is not
// known when the last of these streams is.
cudaMemPool_t lent_pool(int device) {
  static std::mutex mutex;
  static auto* const pools = new std::map<int, cudaMemPool_t>;
  const std::lock_guard<std::mutex> lock(mutex);
  cudaMemPool_t& pool = (*pools)[device];
  if (pool == nullptr) {
    std::size_t free_bytes = 0, total_bytes = 0;
    CGNRT_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
    pool = make_pool(device, total_bytes / kLentShare);
  }
  return pool;
}

}  // namespace

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

bool is_capturing(cudaStream_t stream) noexcept {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t error = cudaStreamIsCapturing(stream, &status);
  if (error == cudaSuccess) return status != cudaStreamCaptureStatusNone;
  cudaGetLastError();  // the stream is gone, or it is the default stream, which may not be asked meanwhile
  return error == cudaErrorStreamCaptureImplicit;
}

std::shared_ptr<Stream> Stream::create(int device, bool high_priority) {
  const DeviceGuard guard(device);
  const RelaxedCapture relaxed;
  int least = 0, greatest = 0;
  CGNRT_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  cudaMemPool_t pool = make_pool(device, kKeepAll);
  cudaStream_t handle = nullptr;
  // Priorities run from `least`, which is also the default, down to `greatest`: none is lower than the
  // default.
  const cudaError_t status =
      cudaStreamCreateWithPriority(&handle, cudaStreamNonBlocking, high_priority ? greatest : least);
  if (status != cudaSuccess) cudaMemPoolDestroy(pool);
  CGNRT_CUDA_CHECK(status);
  return std::shared_ptr<Stream>(new Stream(device, handle, pool, true));
}

std::shared_ptr<Stream> Stream::borrow(int device, cudaStream_t handle) {
  const DeviceGuard guard(device);
  const RelaxedCapture relaxed;
  return std::shared_ptr<Stream>(new Stream(device, handle, lent_pool(device), false));
}

Stream::~Stream() {
  if (!owns_) return;
  // Errors have nowhere to go here; after the runtime's end they are to be expected.
  const RelaxedCapture relaxed;
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

void Stream::trim(std::size_t bytes_to_keep) {
  const RelaxedCapture relaxed;
  CGNRT_CUDA_CHECK(cudaMemPoolTrimTo(pool_, bytes_to_keep));
}

}  // namespace cgnrt
