// A call of an op on a GPU: which stream it runs on, and its tensors.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/borrow.h"
#include "bindings/op_call.h"
#include "cuda/memory.h"
#include "cuda/runtime.h"

namespace cgnrt {

// A call on the device of its first tensor, which is current while this lives. Its stream is the given one, a
// cgnrt Stream or a handle, or else that of the first tensor if it is a DeviceArray, or else the legacy
// default stream.
class CudaCall : public OpCall {
 public:
  // `subject` is the first tensor ("compose masks").
  CudaCall(const pybind11::object& first, const std::string& subject, const pybind11::object& stream);
  ~CudaCall() override;

  // The stream may use the tensor from now on.
  Tensor input(const pybind11::handle& object, const std::string& subject) override;
  // A new result is a DeviceArray. Afterwards the streams of the arrays wait for what `body` enqueued.
  pybind11::object run(const pybind11::object& out, DType dtype, const std::vector<std::int64_t>& shape,
                       const std::function<void(const Tensor&)>& body) override;

  cudaStream_t stream() const { return stream_->handle(); }

 private:
  void finish();

  std::string operation_;
  std::shared_ptr<Stream> stream_;
  std::optional<DeviceGuard> guard_;
  std::vector<std::unique_ptr<Borrowed>> borrowed_;
  std::vector<std::shared_ptr<Allocation>> used_;
  std::vector<DeviceArray*> written_;
  std::vector<std::unique_ptr<Allocation>> scratch_;
};

// A cgnrt Stream, or the handle of another library's stream (an int; 0 and 1 are the legacy default stream)
// on `device`.
std::shared_ptr<Stream> stream_argument(const pybind11::object& object, int device,
                                        const std::string& subject);

}  // namespace cgnrt
