#include "cuda/memory.h"

#include <limits>
#include <string>

#include "cuda/check.h"
#include "cuda/runtime.h"

namespace cgnrt {
namespace {

[[noreturn]] void refuse_memory(const char* what, std::int64_t bytes, int device) {
  std::size_t free_bytes = 0, total_bytes = 0;
  CGNRT_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
  throw DeviceMemoryError(std::string("allocate ") + what + ": " + std::to_string(bytes) +
                          " bytes are wanted, " + std::to_string(free_bytes) + " of " +
                          std::to_string(total_bytes) + " are free on cuda:" + std::to_string(device) + ".");
}

std::int64_t checked_bytes(const std::vector<std::int64_t>& shape, DType dtype) {
  std::int64_t bytes = static_cast<std::int64_t>(size_of(dtype));
  for (const std::int64_t extent : shape) {
    if (extent == 0) return 0;
  }
  for (const std::int64_t extent : shape) {
    if (bytes > std::numeric_limits<std::int64_t>::max() / extent) {
      throw DeviceMemoryError("allocate array: shape is " + to_string(shape) +
                              ", expected what 2^63 bytes hold.");
    }
    bytes *= extent;
  }
  return bytes;
}

}  // namespace

Allocation::Allocation(std::shared_ptr<Stream> stream, std::int64_t bytes) : stream_(std::move(stream)) {
  const DeviceGuard guard(stream_->device());
  const std::size_t size = bytes > 0 ? static_cast<std::size_t>(bytes) : 1;
  const cudaError_t status = cudaMallocFromPoolAsync(&data_, size, stream_->pool(), stream_->handle());
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    refuse_memory("array", bytes, stream_->device());
  }
  CGNRT_CUDA_CHECK(status);
}

Allocation::~Allocation() {
  // On the stream's device, as the handle of a default stream means that of the current one. Errors have
  // nowhere to go here.
  int before = stream_->device();
  cudaGetDevice(&before);
  if (before != stream_->device()) cudaSetDevice(stream_->device());
  cudaFreeAsync(data_, stream_->handle());
  if (before != stream_->device()) cudaSetDevice(before);
}

void Allocation::used_on(cudaStream_t consumer) noexcept {
  if (consumer == stream_->handle()) return;
  try {
    const DeviceGuard guard(stream_->device());
    Event event;
    event.record(consumer);
    stream_->wait(event);
  } catch (const CudaError&) {
    // The consumer's stream is gone, and with it the work that could use the memory.
  }
}

DeviceArray DeviceArray::empty(const std::vector<std::int64_t>& shape, DType dtype,
                               std::shared_ptr<Stream> stream) {
  const std::int64_t bytes = checked_bytes(shape, dtype);
  DeviceArray array;
  array.tensor.shape = shape;
  array.tensor.dtype = dtype;
  array.tensor.dtype_name = name_of(dtype);
  array.tensor.device = {DeviceKind::kCuda, stream->device(), "cuda:" + std::to_string(stream->device())};
  array.memory = std::make_shared<Allocation>(std::move(stream), bytes);
  array.tensor.data = array.memory->data();
  return array;
}

DeviceArray DeviceArray::rows(std::int64_t first, std::int64_t last) const {
  DeviceArray view = *this;
  const std::int64_t whole = tensor.shape.front();
  const std::int64_t row_bytes = whole > 0 ? tensor.bytes() / whole : 0;
  view.tensor.shape.front() = last - first;
  view.tensor.data = static_cast<unsigned char*>(tensor.data) + first * row_bytes;
  return view;
}

void DeviceArray::hand_to(cudaStream_t consumer) const {
  const std::shared_ptr<Stream>& producer = memory->stream();
  if (consumer == producer->handle()) return;
  const DeviceGuard guard(producer->device());
  const std::shared_ptr<Event> event = ready ? ready : producer->record();
  CGNRT_CUDA_CHECK(cudaStreamWaitEvent(consumer, event->handle(), 0));
}

PinnedBuffer::PinnedBuffer(std::int64_t bytes) : bytes_(bytes) {
  const cudaError_t status =
      cudaHostAlloc(&data_, bytes > 0 ? static_cast<std::size_t>(bytes) : 1, cudaHostAllocDefault);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw DeviceMemoryError("allocate page-locked memory: " + std::to_string(bytes) +
                            " bytes are wanted, which the system does not give.");
  }
  CGNRT_CUDA_CHECK(status);
}

PinnedBuffer::~PinnedBuffer() { cudaFreeHost(data_); }

}  // namespace cgnrt
