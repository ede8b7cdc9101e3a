// Arguments of the ops on a GPU: which stream a call runs on, and tensors in and out of it.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/exchange.h"
#include "cuda/memory.h"
#include "cuda/runtime.h"

namespace cgnrt {

// One call: its device is that of its first tensor and is current while this lives; its stream is the one
// given, a cgnrt Stream or a handle, or else that of the first tensor if it is a DeviceArray, or else the
// legacy default stream. Destroy it with the GIL held.
class CudaCall {
 public:
  CudaCall(const pybind11::object& first, const std::string& subject, const pybind11::object& stream);
  ~CudaCall();
  CudaCall(const CudaCall&) = delete;
  CudaCall& operator=(const CudaCall&) = delete;

  // A tensor on the call's device, which the stream may use from now on; of one elsewhere, its device alone.
  Tensor input(const pybind11::object& object, const std::string& subject);
  std::optional<Tensor> optional_input(const pybind11::object& object, const std::string& subject);
  // Where the result goes: `out`, or a new DeviceArray if it is None. `tensor` is set to it.
  pybind11::object output(const pybind11::object& out, DType dtype, const std::vector<std::int64_t>& shape,
                          const std::string& subject, Tensor& tensor);
  // Memory for the call alone.
  void* scratch(std::int64_t bytes);
  // After the launches: orders the streams of the arrays behind them.
  void finish();

  const Device& device() const { return device_; }
  cudaStream_t stream() const { return stream_->handle(); }

 private:
  Device device_;
  std::shared_ptr<Stream> stream_;
  std::optional<DeviceGuard> guard_;
  std::vector<std::unique_ptr<Borrowed>> borrowed_;
  std::vector<std::shared_ptr<Allocation>> used_;
  std::vector<DeviceArray*> written_;
  std::vector<std::unique_ptr<Allocation>> scratch_;
};

// A cgnrt Stream, or the handle of somebody else's (an int; 0 and 1 are the legacy default stream) on
// `device`.
std::shared_ptr<Stream> stream_argument(const pybind11::object& object, int device,
                                        const std::string& subject);

}  // namespace cgnrt
