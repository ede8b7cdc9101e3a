// Device memory in stream order, and arrays on it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "common/tensor.h"
#include "cuda/stream.h"

namespace cgnrt {

// There is no room on the device; says how much was wanted and how much is free.
class DeviceMemoryError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Memory of a stream's pool. It goes back in the order of that stream, after what consumers' streams had been
// given when they let go of it. While one of these streams is captured into a graph, its order is the
// graph's, and a wait would pull the other stream into it: memory that was made before then goes back when
// the capture is over.
class Allocation {
 public:
  // Throws DeviceMemoryError, CudaError.
  Allocation(std::shared_ptr<Stream> stream, std::int64_t bytes);
  ~Allocation();
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;

  void* data() const { return data_; }
  const std::shared_ptr<Stream>& stream() const { return stream_; }
  // What `consumer` has been given so far may still use the memory.
  void used_on(cudaStream_t consumer) noexcept;

 private:
  std::shared_ptr<Stream> stream_;
  void* data_ = nullptr;
  bool is_of_graph_ = false;  // made by a capture
  std::mutex mutex_;
  std::vector<cudaStream_t> users_;  // that the stream must wait for yet
};

// Gives back what was let go of during captures that are over now. So does every allocation and release.
void release_deferred() noexcept;

// A C-contiguous array on a device: a view of an allocation. `ready` is what consumers wait for; null: all
// that the stream has been given when they ask.
struct DeviceArray {
  std::shared_ptr<Allocation> memory;
  std::shared_ptr<Event> ready;
  Tensor tensor;

  static DeviceArray empty(const std::vector<std::int64_t>& shape, DType dtype,
                           std::shared_ptr<Stream> stream);
  // Items first..last-1 along the first axis, on the same memory.
  DeviceArray rows(std::int64_t first, std::int64_t last) const;
  // Lets a consumer's stream use the array from now on. Throws CudaError, also where one of the two streams
  // is being captured and the other is not.
  void hand_to(cudaStream_t consumer) const;
};

// Page-locked host memory, which a device copies from and to without the host's help.
class PinnedBuffer {
 public:
  explicit PinnedBuffer(std::int64_t bytes);
  ~PinnedBuffer();
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  void* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::int64_t bytes_;
};

}  // namespace cgnrt
