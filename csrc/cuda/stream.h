// Streams and events. Always explicit: nothing in csrc uses a device's default stream unless it is handed in.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

namespace cgnrt {

class Event {
 public:
  // On the current device. Throws CudaError.
  explicit Event(bool timing = false);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(cudaStream_t stream);
  bool query() const;        // whether the stream got there
  void synchronize() const;  // blocks the host
  float milliseconds_since(const Event& earlier) const;
  cudaEvent_t handle() const { return handle_; }

 private:
  cudaEvent_t handle_ = nullptr;
};

// Whether a stream of the current device is being captured into a graph.
bool is_capturing(cudaStream_t stream) noexcept;

// A non-blocking stream with a pool of memory of its own, or another library's stream; those of a device
// share a pool. A pool keeps freed memory for the next allocation, until trim() is called: that of an own
// stream all of it until the stream is destroyed, the shared one at most a sixteenth of the device's memory.
class Stream : public std::enable_shared_from_this<Stream> {
 public:
  // Throws CudaError.
  static std::shared_ptr<Stream> create(int device, bool high_priority = false);
  static std::shared_ptr<Stream> borrow(int device, cudaStream_t handle);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  int device() const { return device_; }
  cudaStream_t handle() const { return handle_; }
  cudaMemPool_t pool() const { return pool_; }

  void synchronize() const;  // blocks the host
  std::shared_ptr<Event> record(bool timing = false);
  void wait(const Event& event);
  // Orders this stream behind what another of its device has been given so far.
  void wait_for(cudaStream_t other);
  // Gives unused memory of the pool back to the device, except for this much.
  void trim(std::size_t bytes_to_keep);

 private:
  Stream(int device, cudaStream_t handle, cudaMemPool_t pool, bool owns)
      : device_(device), handle_(handle), pool_(pool), owns_(owns) {}

  int device_;
  cudaStream_t handle_;
  cudaMemPool_t pool_;
  bool owns_;
};

}  // namespace cgnrt
