#include "cuda/memory.h"

#include <algorithm>
#include <limits>
#include <list>
#include <string>
#include <utility>

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

void wait_for_user(Stream& stream, cudaStream_t user) {
  try {
    Event event;
    event.record(user);
    stream.wait(event);
  } catch (const CudaError&) {
    // The user's stream is gone, and with it the work that could use the memory.
  }
}

// Memory that nobody holds any more.
struct Release {
  std::shared_ptr<Stream> stream;
  void* data;
  std::vector<cudaStream_t> users;
};

// Whether the memory went back; not while one of the streams is being captured.
bool release(const Release& memory) noexcept {
  try {
    const DeviceGuard guard(memory.stream->device());
    if (is_capturing(memory.stream->handle())) return false;
    if (std::any_of(memory.users.begin(), memory.users.end(), is_capturing)) return false;
    for (const cudaStream_t user : memory.users) wait_for_user(*memory.stream, user);
    cudaFreeAsync(memory.data, memory.stream->handle());
  } catch (const CudaError&) {
    // After the runtime's end, which took the memory with it.
  }
  return true;
}

struct Deferred {
  std::mutex mutex;
  std::list<Release> releases;
};

// Never destroyed: memory may be let go of after everything else.
Deferred& deferred() {
  static auto* const found = new Deferred;
  return *found;
}

}  // namespace

void release_deferred() noexcept {
  Deferred& waiting = deferred();
  const std::lock_guard<std::mutex> lock(waiting.mutex);
  waiting.releases.remove_if(release);
}

Allocation::Allocation(std::shared_ptr<Stream> stream, std::int64_t bytes) : stream_(std::move(stream)) {
  release_deferred();
  const DeviceGuard guard(stream_->device());
  is_of_graph_ = is_capturing(stream_->handle());
  const std::size_t size = bytes > 0 ? static_cast<std::size_t>(bytes) : 1;
  const cudaError_t status = cudaMallocFromPoolAsync(&data_, size, stream_->pool(), stream_->handle());
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    refuse_memory("array", bytes, stream_->device());
  }
  CGNRT_CUDA_CHECK(status);
}

Allocation::~Allocation() {
  release_deferred();
  if (is_of_graph_) {
    int before = stream_->device();
    cudaGetDevice(&before);
    if (before != stream_->device()) cudaSetDevice(stream_->device());
    cudaFreeAsync(data_, stream_->handle());
    if (before != stream_->device()) cudaSetDevice(before);
    return;
  }
  Release memory{std::move(stream_), data_, std::move(users_)};
  if (release(memory)) return;
  Deferred& waiting = deferred();
  const std::lock_guard<std::mutex> lock(waiting.mutex);
  waiting.releases.push_back(std::move(memory));
}

void Allocation::used_on(cudaStream_t consumer) noexcept {
  if (consumer == stream_->handle()) return;
  try {
    const DeviceGuard guard(stream_->device());
    if (!is_capturing(consumer) && !is_capturing(stream_->handle())) return wait_for_user(*stream_, consumer);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (std::find(users_.begin(), users_.end(), consumer) == users_.end()) users_.push_back(consumer);
  } catch (const CudaError&) {
    // After the runtime's end.
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
  const bool is_captured = is_capturing(consumer);
  if (is_captured != is_capturing(producer->handle()) && (is_captured || !ready)) {
    throw CudaError(
        cudaErrorStreamCaptureIsolation,
        std::string("hand array to a stream: ") +
            (is_captured ? "that stream is being captured into a graph, and the array's is not"
                         : "the array's stream is being captured into a graph, and that one is not") +
            ", expected both or none. Export the array, by torch.from_dlpack for example, before the "
            "capture begins, and use what it gives.");
  }
  const std::shared_ptr<Event> event = ready ? ready : producer->record();
  CGNRT_CUDA_CHECK(cudaStreamWaitEvent(consumer, event->handle(), 0));
}

PinnedBuffer::PinnedBuffer(std::int64_t bytes) : bytes_(bytes) {
  const RelaxedCapture relaxed;
  const cudaError_t status =
      cudaHostAlloc(&data_, bytes > 0 ? static_cast<std::size_t>(bytes) : 1, cudaHostAllocDefault);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw DeviceMemoryError("allocate page-locked memory: " + std::to_string(bytes) +
                            " bytes are wanted, which the system does not give.");
  }
  CGNRT_CUDA_CHECK(status);
}

PinnedBuffer::~PinnedBuffer() {
  const RelaxedCapture relaxed;
  cudaFreeHost(data_);
}

}  // namespace cgnrt
