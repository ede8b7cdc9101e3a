// Arrays on a device, and page-locked memory, as Python sees them.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/cuda_call.h"
#include "bindings/lend.h"
#include "bindings/module.h"
#include "cuda/check.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

// What a capsule of an array keeps alive, and who uses it.
struct LentArray : Lent {
  ~LentArray() override {
    if (consumer != nullptr) array.memory->used_on(consumer);
  }
  DeviceArray array;
  cudaStream_t consumer = nullptr;
};

constexpr std::pair<DType, std::uint8_t> kCodes[] = {
    {DType::kFloat32, dlpack::kFloat}, {DType::kFloat16, dlpack::kFloat}, {DType::kBFloat16, dlpack::kBfloat},
    {DType::kUInt8, dlpack::kUInt},    {DType::kUInt32, dlpack::kUInt},   {DType::kInt32, dlpack::kInt},
    {DType::kInt64, dlpack::kInt}};

DType array_dtype(const py::object& object, const std::string& subject) {
  std::vector<std::string> names;
  for (const auto& code : kCodes) names.push_back(name_of(code.first));
  return kCodes[choice_argument(object, subject, names)].first;
}

std::uint8_t code_of(DType dtype) {
  for (const auto& code : kCodes) {
    if (code.first == dtype) return code.second;
  }
  return dlpack::kFloat;
}

std::vector<std::int64_t> extents_of(const py::sequence& shape, const std::string& subject) {
  std::vector<std::int64_t> extents;
  for (const py::handle extent : shape) {
    extents.push_back(integer_argument(extent, subject, 0, std::int64_t{1} << 62));
  }
  return extents;
}

DeviceArray make_empty(const py::sequence& shape, const py::object& dtype, std::shared_ptr<Stream> stream) {
  return DeviceArray::empty(extents_of(shape, "DeviceArray.empty shape"),
                            array_dtype(dtype, "DeviceArray.empty dtype"), std::move(stream));
}

// Some of the bytes of an array as an array of another kind.
DeviceArray view(const DeviceArray& array, const py::object& offset, const py::sequence& shape,
                 const py::object& dtype) {
  DeviceArray part = array;
  part.tensor.shape = extents_of(shape, "view shape");
  part.tensor.dtype = array_dtype(dtype, "view dtype");
  part.tensor.dtype_name = name_of(part.tensor.dtype);
  const std::int64_t first = integer_argument(offset, "view offset", 0, array.tensor.bytes());
  std::int64_t room = (array.tensor.bytes() - first) / static_cast<std::int64_t>(size_of(part.tensor.dtype));
  bool is_empty = false;
  for (const std::int64_t extent : part.tensor.shape) {
    is_empty = is_empty || extent == 0;
    if (extent > 0) room /= extent;
  }
  if (room < 1 && !is_empty) {
    refuse("view shape", "shape", to_string(part.tensor.shape) + " from byte " + std::to_string(first),
           "what " + std::to_string(array.tensor.bytes()) + " bytes hold");
  }
  part.tensor.data = static_cast<unsigned char*>(array.tensor.data) + first;
  require_plain("view offset", part.tensor);
  return part;
}

py::tuple shape_of(const DeviceArray& array) {
  py::tuple shape(array.tensor.shape.size());
  for (std::size_t i = 0; i < array.tensor.shape.size(); ++i) shape[i] = array.tensor.shape[i];
  return shape;
}

std::int64_t length_of(const DeviceArray& array) {
  if (array.tensor.shape.empty())
    throw py::type_error("len: the array has no dimension, expected at least one.");
  return array.tensor.shape.front();
}

DeviceArray item(const DeviceArray& array, const py::object& key) {
  const std::int64_t length = length_of(array);
  if (py::isinstance<py::slice>(key)) {
    py::ssize_t first = 0, last = 0, step = 0, count = 0;
    if (!key.cast<py::slice>().compute(static_cast<py::ssize_t>(length), &first, &last, &step, &count)) {
      throw py::error_already_set();
    }
    if (step != 1) refuse("index array", "step", std::to_string(step), "1");
    return array.rows(first, first + count);
  }
  std::int64_t at = integer_argument(key, "index array", -length, length - 1);
  if (at < 0) at += length;
  DeviceArray row = array.rows(at, at + 1);
  row.tensor.shape.erase(row.tensor.shape.begin());
  return row;
}

// Enqueues a copy from host memory, which must not change until the stream got there if it is page-locked.
void upload(DeviceArray& array, const py::object& source) {
  const Borrowed from(source, "upload source");
  const std::string device = array.tensor.device.name;
  if (from.tensor().device.kind != DeviceKind::kCpu) {
    refuse("upload source", "device", from.tensor().device.name, "cpu");
  }
  const bool as_bits = array.tensor.dtype == DType::kBFloat16 && from.tensor().dtype == DType::kUInt16;
  if (from.tensor().dtype != array.tensor.dtype && !as_bits) {
    refuse("upload source", "dtype", from.tensor().dtype_name, array.tensor.dtype_name);
  }
  if (from.tensor().shape != array.tensor.shape) {
    refuse("upload source", "shape", to_string(from.tensor().shape), to_string(array.tensor.shape));
  }
  require_plain("upload source", from.tensor());
  const DeviceGuard guard(array.tensor.device.index);
  array.ready.reset();
  if (array.tensor.bytes() == 0) return;
  CGNRT_CUDA_CHECK(cudaMemcpyAsync(array.tensor.data, from.tensor().data,
                                   static_cast<std::size_t>(array.tensor.bytes()), cudaMemcpyHostToDevice,
                                   array.memory->stream()->handle()));
}

py::object to_numpy(const DeviceArray& array, const py::object& out) {
  const py::object result = out.is_none() ? new_array(array.tensor.dtype, array.tensor.shape) : out;
  const Borrowed to(result, "numpy out");
  if (to.tensor().device.kind != DeviceKind::kCpu)
    refuse("numpy out", "device", to.tensor().device.name, "cpu");
  require_out("numpy out", to.tensor(), array.tensor.dtype, array.tensor.shape);
  const Stream& stream = *array.memory->stream();
  const DeviceGuard guard(array.tensor.device.index);
  {
    const py::gil_scoped_release unlocked;
    if (array.ready) CGNRT_CUDA_CHECK(cudaStreamWaitEvent(stream.handle(), array.ready->handle(), 0));
    if (array.tensor.bytes() > 0) {
      CGNRT_CUDA_CHECK(cudaMemcpyAsync(to.tensor().data, array.tensor.data,
                                       static_cast<std::size_t>(array.tensor.bytes()), cudaMemcpyDeviceToHost,
                                       stream.handle()));
    }
    stream.synchronize();
  }
  return result;
}

void enqueue_copy(const Tensor& to, const Tensor& from, cudaStream_t stream) {
  if (from.bytes() == 0) return;
  CGNRT_CUDA_CHECK(cudaMemcpyAsync(to.data, from.data, static_cast<std::size_t>(from.bytes()),
                                   cudaMemcpyDeviceToDevice, stream));
}

void copy(const py::object& source, const py::object& out, const py::object& stream) {
  CudaCall call(source, "copy source", stream);
  const Tensor from = call.input(source, "copy source");
  require_plain("copy source", from);
  call.run(out, from.dtype, from.shape, [&](const Tensor& to) {
    require_device("copy out", to, from.device);
    require_out("copy out", to, from.dtype, from.shape);
    require_apart("copy", to, "source", from);
    enqueue_copy(to, from, call.stream());
  });
}

void copy_unordered(const DeviceArray& source, const DeviceArray& out, const Stream& stream) {
  const Tensor &from = source.tensor, &to = out.tensor;
  if (to.device.name != from.device.name || stream.device() != from.device.index) {
    refuse(
        "copy_unordered", "devices",
        from.device.name + ", " + to.device.name + " and a stream of cuda:" + std::to_string(stream.device()),
        "one");
  }
  require_out("copy_unordered out", to, from.dtype, from.shape);
  require_apart("copy_unordered", to, "source", from);
  const DeviceGuard guard(stream.device());
  enqueue_copy(to, from, stream.handle());
}

// The consumer's stream as __dlpack__ has it for CUDA: None is the legacy default stream, -1 asks for no
// order. 2, the per-thread default stream, would be another one in the thread that lets go of the array.
py::capsule to_dlpack(const DeviceArray& array, const py::object& stream, const py::object& max_version,
                      const py::object& dl_device, const py::object& copy) {
  const auto refuse_buffer = [](const std::string& message) {
    PyErr_SetString(PyExc_BufferError, message.c_str());
    throw py::error_already_set();
  };
  if (!dl_device.is_none() &&
      !dl_device.equal(py::make_tuple(static_cast<int>(dlpack::kCuda), array.tensor.device.index))) {
    refuse_buffer("__dlpack__: dl_device is " + std::string(py::str(dl_device)) +
                  ", expected that of the array. " + "Call numpy() for a copy on the host.");
  }
  if (!copy.is_none() && copy.cast<bool>()) {
    refuse_buffer("__dlpack__: copy is True, expected None or False: the array is lent, never copied.");
  }
  auto lent = std::make_unique<LentArray>();
  lent->array = array;
  lent->shape = array.tensor.shape;
  const std::int64_t number =
      stream.is_none() ? 1 : integer_argument(stream, "__dlpack__ stream", -1, INT64_MAX);
  if (number == 0 || number == 2) {
    refuse_buffer("__dlpack__: stream is " + std::to_string(number) +
                  ", expected 1 (the default stream), the handle of another, or -1.");
  }
  if (number > 0) {
    lent->consumer = reinterpret_cast<cudaStream_t>(static_cast<std::uintptr_t>(number));
    array.hand_to(lent->consumer);
  }
  dlpack::DLTensor tensor{};
  tensor.data = array.tensor.data;
  tensor.device = {dlpack::kCuda, array.tensor.device.index};
  tensor.dtype = {code_of(array.tensor.dtype), static_cast<std::uint8_t>(size_of(array.tensor.dtype) * 8), 1};
  return lend(std::move(lent), tensor, false, max_version, "__dlpack__");
}

py::dict cuda_array_interface(const DeviceArray& array) {
  if (array.tensor.dtype == DType::kBFloat16) {
    throw py::attribute_error(
        "__cuda_array_interface__: dtype is bfloat16, expected one that it has a name for. Use DLPack.");
  }
  const std::uint8_t code = code_of(array.tensor.dtype);
  const char kind = code == dlpack::kFloat ? 'f' : code == dlpack::kUInt ? 'u' : 'i';
  const std::size_t size = size_of(array.tensor.dtype);
  py::dict facts;
  facts["shape"] = shape_of(array);
  facts["typestr"] = std::string(size == 1 ? "|" : "<") + kind + std::to_string(size);
  facts["data"] = py::make_tuple(reinterpret_cast<std::uintptr_t>(array.tensor.data), false);
  facts["version"] = 3;
  facts["strides"] = py::none();
  facts["stream"] = reinterpret_cast<std::uintptr_t>(array.memory->stream()->handle());
  return facts;
}

[[noreturn]] py::object refuse_array(const DeviceArray&, const py::args&, const py::kwargs&) {
  throw py::type_error(
      "convert array: it is on a GPU, expected one on the host. Use batch.torch(), DLPack, or .numpy() for a "
      "copy.");
}

}  // namespace

void bind_cuda_arrays(py::module_& module) {
  py::class_<DeviceArray>(module, "DeviceArray",
                          "A C-contiguous array on a GPU, in memory of a stream's pool. It leaves by DLPack.")
      .def_static("empty", &make_empty, py::arg("shape"), py::arg("dtype"), py::arg("stream"))
      .def_property_readonly("shape", &shape_of)
      .def_property_readonly("dtype", [](const DeviceArray& a) { return name_of(a.tensor.dtype); })
      .def_property_readonly("nbytes", [](const DeviceArray& a) { return a.tensor.bytes(); })
      .def_property_readonly(
          "data_ptr", [](const DeviceArray& a) { return reinterpret_cast<std::uintptr_t>(a.tensor.data); })
      .def_property_readonly("device", [](const DeviceArray& a) { return a.tensor.device.index; })
      .def_property_readonly("stream", [](const DeviceArray& a) { return a.memory->stream(); })
      .def("view", &view, py::arg("offset"), py::arg("shape"), py::arg("dtype"),
           "Bytes of the array from an offset on, as an array of another shape and dtype; no copy.")
      .def("upload", &upload, py::arg("source"), "Copy from host memory, in the order of the array's stream.")
      .def("numpy", &to_numpy, py::arg("out") = py::none(),
           "Copy to the host and wait for it; bfloat16 as its uint16 bits.")
      .def(
          "ready",
          [](DeviceArray& a, std::shared_ptr<Event> event) {
            a.ready = event ? std::move(event) : a.memory->stream()->record();
          },
          py::arg("event") = py::none(),
          "Let consumers wait for an event, None for what the stream has been given by now, and not for what "
          "follows.")
      .def("__len__", &length_of)
      .def("__getitem__", &item)
      .def("__dlpack__", &to_dlpack, py::kw_only(), py::arg("stream") = py::none(),
           py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(),
           py::arg("copy") = py::none())
      .def("__dlpack_device__",
           [](const DeviceArray& a) {
             return py::make_tuple(static_cast<int>(dlpack::kCuda), a.tensor.device.index);
           })
      .def_property_readonly("__cuda_array_interface__", &cuda_array_interface)
      .def("__array__", &refuse_array)
      .def("__repr__", [](const DeviceArray& a) {
        return "DeviceArray(shape=" + to_string(a.tensor.shape) + ", dtype='" + name_of(a.tensor.dtype) +
               "', device='" + a.tensor.device.name + "')";
      });

  py::class_<PinnedBuffer>(module, "PinnedBuffer", py::buffer_protocol(), "Page-locked host memory.")
      .def(py::init([](const py::object& bytes) {
             return std::make_unique<PinnedBuffer>(
                 integer_argument(bytes, "PinnedBuffer bytes", 0, std::int64_t{1} << 62));
           }),
           py::arg("bytes"))
      .def_buffer([](PinnedBuffer& buffer) {
        return py::buffer_info(static_cast<std::uint8_t*>(buffer.data()),
                               static_cast<py::ssize_t>(buffer.bytes()));
      });

  module.def("copy", &copy, py::arg("source"), py::arg("out"), py::arg("stream") = py::none(),
             "Copy between tensors of one device, in the order of a stream.");
  module.def(
      "copy_unordered", &copy_unordered, py::arg("source"), py::arg("out"), py::arg("stream"),
      "Copy on a stream that the caller orders with those of the arrays, and that waits for none of them.");
}

}  // namespace cgnrt
