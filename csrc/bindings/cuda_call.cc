#include "bindings/cuda_call.h"

#include <cstdint>
#include <limits>

#include "bindings/arguments.h"
#include "cuda/check.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

constexpr std::int64_t kLegacyStream = 1;
constexpr std::int64_t kPerThreadStream = 2;

Device cuda(int index) { return {DeviceKind::kCuda, index, "cuda:" + std::to_string(index)}; }

// The device that memory is really on. A kernel that reads other memory faults, and the process can then no
// longer use the device.
Device place_of(const Tensor& tensor, const std::string& subject) {
  if (tensor.bytes() == 0) return tensor.device;
  cudaPointerAttributes attributes{};
  const cudaError_t status = cudaPointerGetAttributes(&attributes, tensor.data);
  if (status != cudaSuccess) cudaGetLastError();
  if (status != cudaSuccess ||
      (attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged)) {
    refuse(subject, "address", "that of host memory", "memory of " + tensor.device.name);
  }
  return cuda(attributes.device);
}

std::int64_t handle_number(cudaStream_t stream) {
  return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(stream));
}

cudaStream_t handle_of(std::int64_t number) {
  return reinterpret_cast<cudaStream_t>(static_cast<std::uintptr_t>(number));
}

// The device that a tensor is on, before anything else is asked of it.
Device device_of_first(const py::handle& object, const std::string& subject) {
  if (py::isinstance<DeviceArray>(object)) return object.cast<DeviceArray&>().tensor.device;
  if (!py::hasattr(object, "__dlpack_device__") && py::hasattr(object, "__cuda_array_interface__")) {
    const Borrowed borrowed(object, subject, kLegacyStream);
    return place_of(borrowed.tensor(), subject);
  }
  return Borrowed(object, subject).tensor().device;
}

}  // namespace

std::shared_ptr<Stream> stream_argument(const py::object& object, int device, const std::string& subject) {
  if (py::isinstance<Stream>(object)) {
    const auto stream = object.cast<std::shared_ptr<Stream>>();
    if (stream->device() != device) {
      refuse(subject, "device", "cuda:" + std::to_string(stream->device()), "cuda:" + std::to_string(device));
    }
    return stream;
  }
  // 0, the null stream, is the legacy default stream: so torch and CuPy name their own default.
  const std::int64_t number = integer_argument(object, subject, 0, std::numeric_limits<std::int64_t>::max());
  // Another one in each thread, and memory may be let go of by any.
  if (number == kPerThreadStream) {
    refuse(subject, "stream", "2, the per-thread default stream", "0, 1 or the handle of a stream",
           "Use a stream of its own.");
  }
  return Stream::borrow(device, handle_of(number == 0 ? kLegacyStream : number));
}

CudaCall::CudaCall(const py::object& first, const std::string& subject, const py::object& stream) {
  const Device device = device_of_first(first, subject);
  if (device.kind != DeviceKind::kCuda) refuse(subject, "device", device.name, "a CUDA device");
  operation_ = subject.substr(0, subject.find(' '));
  if (!stream.is_none()) {
    stream_ = stream_argument(stream, device.index, operation_ + " stream");
  } else if (py::isinstance<DeviceArray>(first)) {
    stream_ = first.cast<DeviceArray&>().memory->stream();
  } else {
    stream_ = Stream::borrow(device.index, handle_of(kLegacyStream));
  }
  guard_.emplace(device.index);
  target_.device = device;
  target_.stream = stream_->handle();
  target_.scratch = [this](std::int64_t bytes) {
    scratch_.push_back(std::make_unique<Allocation>(stream_, bytes));
    return scratch_.back()->data();
  };
}

CudaCall::~CudaCall() = default;

Tensor CudaCall::input(const py::handle& object, const std::string& subject) {
  if (py::isinstance<DeviceArray>(object)) {
    const DeviceArray& array = object.cast<DeviceArray&>();
    if (array.tensor.device.index == target_.device.index) {
      array.hand_to(stream_->handle());
      used_.push_back(array.memory);
    }
    return array.tensor;
  }
  borrowed_.push_back(std::make_unique<Borrowed>(object, subject, handle_number(stream_->handle())));
  const Borrowed& borrowed = *borrowed_.back();
  Tensor tensor = borrowed.tensor();
  if (tensor.device.kind != DeviceKind::kCuda) return tensor;
  tensor.device = place_of(tensor, subject);
  if (tensor.device.index < 0)
    tensor.device = target_.device;  // an empty array of the CUDA array interface is anywhere
  if (borrowed.producer_stream() && tensor.device.index == target_.device.index) {
    stream_->wait_for(handle_of(*borrowed.producer_stream()));
  }
  return tensor;
}

void CudaCall::finish() {
  for (const std::shared_ptr<Allocation>& memory : used_) memory->used_on(stream_->handle());
  for (DeviceArray* array : written_) {
    // Consumers wait for this call, not for an earlier event.
    const bool on_its_own = array->memory->stream()->handle() == stream_->handle();
    array->ready = on_its_own ? nullptr : stream_->record();
  }
}

py::object CudaCall::run(const py::object& out, DType dtype, const std::vector<std::int64_t>& shape,
                         const std::function<void(const Tensor&)>& body) {
  if (out.is_none()) {
    DeviceArray array = DeviceArray::empty(shape, dtype, stream_);
    body(array.tensor);
    finish();
    return py::cast(std::move(array));
  }
  const Tensor to = input(out, operation_ + " out");
  if (py::isinstance<DeviceArray>(out)) written_.push_back(&out.cast<DeviceArray&>());
  body(to);
  finish();
  return out;
}

std::unique_ptr<OpCall> begin_call(const char* operation, const py::object& first, const char* name,
                                   const py::object& stream, const std::string& implementation,
                                   const py::object&) {
  if (implementation != "auto") {
    refuse(operation, "implementation", "'" + implementation + "'", "'auto' on a GPU");
  }
  return std::make_unique<CudaCall>(first, std::string(operation) + " " + name, stream);
}

}  // namespace cgnrt
