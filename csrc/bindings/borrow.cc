#include "bindings/borrow.h"

#include <pybind11/numpy.h>

#include <cstdlib>
#include <cstring>

#include "bindings/dlpack.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

bool is_contiguous(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides) {
  std::int64_t expected = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    if (shape[i] == 0) return true;
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

// kind: 'i' signed, 'u' unsigned, 'f' float, 'b' bfloat.
DType dtype_of(char kind, std::int64_t bits) {
  if (kind == 'f' && bits == 32) return DType::kFloat32;
  if (kind == 'f' && bits == 16) return DType::kFloat16;
  if (kind == 'b' && bits == 16) return DType::kBFloat16;
  if (kind == 'u' && bits == 8) return DType::kUInt8;
  if (kind == 'u' && bits == 16) return DType::kUInt16;
  if (kind == 'u' && bits == 32) return DType::kUInt32;
  if (kind == 'i' && bits == 32) return DType::kInt32;
  if (kind == 'i' && bits == 64) return DType::kInt64;
  return DType::kOther;
}

std::string dtype_name(char kind, std::int64_t bits) {
  const char* base = kind == 'f' ? "float" : kind == 'b' ? "bfloat" : kind == 'u' ? "uint" : "int";
  return base + std::to_string(bits);
}

std::string type_name(const py::handle& object) { return Py_TYPE(object.ptr())->tp_name; }

[[noreturn]] void refuse_type(const py::handle& object, const std::string& subject) {
  throw py::type_error(
      subject + ": type is " + type_name(object) +
      ", expected a tensor (buffer protocol or DLPack). Pass a NumPy array or a torch tensor.");
}

// Refuses NumPy's masked arrays: their masks would be lost. NumPy's own arrays, by far the most, need no
// look-up.
void refuse_masked(const py::handle& object, const std::string& subject) {
  if (type_name(object) == "numpy.ndarray") return;
  const py::dict modules = py::module_::import("sys").attr("modules");
  if (!modules.contains("numpy.ma")) return;  // not imported: nobody has such an array
  if (!py::isinstance(object, modules["numpy.ma"].attr("MaskedArray"))) return;
  const std::size_t space = subject.find(' ');
  const std::string name = subject.substr(space + 1);
  throw py::type_error(subject.substr(0, space) + ": " + name +
                       " is a masked array, expected one without a mask. Pass " + name +
                       ".compressed(), or " + name + ".filled(...).");
}

bool native_byte_order(char prefix) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  return prefix != '>' && prefix != '!';
#else
  return prefix != '<';
#endif
}

// Sets dtype and dtype_name from a struct-style format and the item's size.
void describe_format(const char* format, std::int64_t item_bytes, Tensor& tensor) {
  const std::string text = format == nullptr ? "B" : format;
  const bool prefixed = !text.empty() && std::strchr("@=<>!", text[0]) != nullptr;
  const std::string code = prefixed ? text.substr(1) : text;
  tensor.dtype_name = "'" + text + "'";
  if (code.size() != 1) return;
  char kind = 0;
  if (std::strchr("bhilqn", code[0]) != nullptr) kind = 'i';
  if (std::strchr("BHILQN", code[0]) != nullptr) kind = 'u';
  if (std::strchr("efdg", code[0]) != nullptr) kind = 'f';
  if (code[0] == '?') tensor.dtype_name = "bool";
  if (kind == 0) return;
  tensor.dtype_name = dtype_name(kind, item_bytes * 8);
  if (item_bytes > 1 && prefixed && !native_byte_order(text[0])) {
    tensor.dtype_name += " of the other byte order";
    return;
  }
  tensor.dtype = dtype_of(kind, item_bytes * 8);
}

Device device_of(std::int64_t type, std::int64_t id) {
  Device device;
  device.index = static_cast<int>(id);
  if (type == dlpack::kCpu || type == dlpack::kCudaHost) return device;
  device.kind = type == dlpack::kCuda ? DeviceKind::kCuda : DeviceKind::kOther;
  device.name =
      type == dlpack::kCuda ? "cuda:" + std::to_string(id) : "of DLPack type " + std::to_string(type);
  return device;
}

// Whether an object says by DLPack that it is not in host memory.
bool is_on_device(const py::handle& object) {
  if (!py::hasattr(object, "__dlpack_device__")) return false;
  const py::tuple device = object.attr("__dlpack_device__")();
  return device_of(py::int_(device[0]), py::int_(device[1])).kind != DeviceKind::kCpu;
}

// By __dlpack__ of the current protocol, or of the one before it.
py::object dlpack_capsule(const py::handle& object, std::optional<std::int64_t> stream) {
  py::dict options;
  if (stream) options["stream"] = *stream;
  try {
    return object.attr("__dlpack__")(py::arg("max_version") = py::make_tuple(1, 0), **options);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
  }
  return object.attr("__dlpack__")(**options);
}

void describe_dlpack(const dlpack::DLTensor& dl, Tensor& tensor) {
  tensor.data = static_cast<unsigned char*>(dl.data) + dl.byte_offset;
  tensor.shape.assign(dl.shape, dl.shape + dl.ndim);
  if (dl.strides != nullptr) {
    tensor.contiguous =
        is_contiguous(tensor.shape, std::vector<std::int64_t>(dl.strides, dl.strides + dl.ndim));
  }
  const char kind = dl.dtype.code == dlpack::kInt      ? 'i'
                    : dl.dtype.code == dlpack::kUInt   ? 'u'
                    : dl.dtype.code == dlpack::kFloat  ? 'f'
                    : dl.dtype.code == dlpack::kBfloat ? 'b'
                                                       : 0;
  if (kind == 0 || dl.dtype.lanes != 1) {
    tensor.dtype_name = dl.dtype.code == dlpack::kBool
                            ? "bool"
                            : "of DLPack type code " + std::to_string(static_cast<int>(dl.dtype.code));
    return;
  }
  tensor.dtype = dtype_of(kind, dl.dtype.bits);
  tensor.dtype_name = dtype_name(kind, dl.dtype.bits);
}

}  // namespace

Borrowed::Borrowed(const py::handle& object, const std::string& subject) { borrow(object, subject); }

Borrowed::Borrowed(const py::handle& object, const std::string& subject, std::int64_t cuda_stream)
    : cuda_stream_(cuda_stream) {
  borrow(object, subject);
}

void Borrowed::borrow(const py::handle& object, const std::string& subject) {
  const bool is_buffer = PyObject_CheckBuffer(object.ptr()) != 0;
  if (is_buffer) refuse_masked(object, subject);
  if (is_buffer && borrow_buffer(object)) return;
  // A JAX array has the buffer protocol, and refuses to use it on a GPU.
  if (is_buffer && !is_on_device(object)) refuse_type(object, subject);
  if (py::hasattr(object, "__dlpack__") && py::hasattr(object, "__dlpack_device__")) {
    borrow_dlpack(object, subject);
  } else if (cuda_stream_ && py::hasattr(object, "__cuda_array_interface__")) {
    borrow_cuda_array(object, subject);
  } else {
    refuse_type(object, subject);
  }
}

Borrowed::~Borrowed() {
  if (has_view_) PyBuffer_Release(&view_);
}

bool Borrowed::borrow_buffer(const py::handle& object) {
  if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
    PyErr_Clear();
    return false;
  }
  has_view_ = true;
  tensor_.data = view_.buf;
  tensor_.readonly = view_.readonly != 0;
  tensor_.shape.assign(view_.shape, view_.shape + view_.ndim);
  const std::int64_t item_bytes = view_.itemsize;
  describe_format(view_.format, item_bytes, tensor_);
  std::vector<std::int64_t> strides(static_cast<std::size_t>(view_.ndim));
  for (std::size_t i = 0; i < strides.size(); ++i) {
    // -1: not a whole number of items, so not contiguous.
    const std::int64_t bytes = view_.strides[i];
    strides[i] = item_bytes > 0 && bytes % item_bytes == 0 ? bytes / item_bytes : -1;
  }
  tensor_.contiguous = is_contiguous(tensor_.shape, strides);
  return true;
}

void Borrowed::borrow_dlpack(const py::handle& object, const std::string& subject) {
  try {
    const py::tuple device = object.attr("__dlpack_device__")();
    tensor_.device = device_of(py::int_(device[0]), py::int_(device[1]));
    const bool on_cuda = tensor_.device.kind == DeviceKind::kCuda;
    if (tensor_.device.kind == DeviceKind::kOther || (on_cuda && !cuda_stream_)) return;
    capsule_ = dlpack_capsule(object, on_cuda ? cuda_stream_ : std::nullopt);
  } catch (py::error_already_set& error) {
    // For example a tensor that requires a gradient.
    throw py::value_error(subject + ": " + type_name(object) +
                          " is not exportable, expected a plain tensor. " +
                          std::string(py::str(error.value())));
  }
  if (PyCapsule_IsValid(capsule_.ptr(), dlpack::kVersionedName)) {
    const auto* managed = static_cast<const dlpack::DLManagedTensorVersioned*>(
        PyCapsule_GetPointer(capsule_.ptr(), dlpack::kVersionedName));
    if (managed->version.major != 1) {
      refuse(subject, "DLPack version", std::to_string(managed->version.major), "1");
    }
    tensor_.readonly = (managed->flags & dlpack::kFlagReadOnly) != 0;
    describe_dlpack(managed->dl_tensor, tensor_);
  } else if (PyCapsule_IsValid(capsule_.ptr(), dlpack::kName)) {
    const auto* managed =
        static_cast<const dlpack::DLManagedTensor*>(PyCapsule_GetPointer(capsule_.ptr(), dlpack::kName));
    describe_dlpack(managed->dl_tensor, tensor_);
  } else {
    refuse_type(object, subject);
  }
}

// https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html, version 3
void Borrowed::borrow_cuda_array(const py::handle& object, const std::string& subject) {
  const py::dict facts = object.attr("__cuda_array_interface__");
  const py::tuple data = facts["data"];
  tensor_.data = reinterpret_cast<void*>(data[0].cast<std::uintptr_t>());
  tensor_.readonly = data[1].cast<bool>();
  tensor_.device = {DeviceKind::kCuda, -1, "cuda"};
  for (const py::handle extent : facts["shape"].cast<py::tuple>()) {
    tensor_.shape.push_back(extent.cast<std::int64_t>());
  }
  const std::string type = facts["typestr"].cast<std::string>();  // "<f4"
  const std::int64_t item_bytes = type.size() > 2 ? std::atoi(type.c_str() + 2) : 0;
  tensor_.dtype_name = "'" + type + "'";
  if (item_bytes > 0 && std::strchr("iuf", type[1]) != nullptr) {
    tensor_.dtype_name = dtype_name(type[1], item_bytes * 8);
    if (item_bytes == 1 || native_byte_order(type[0])) tensor_.dtype = dtype_of(type[1], item_bytes * 8);
  }
  if (facts.contains("strides") && !facts["strides"].is_none()) {
    std::vector<std::int64_t> strides;
    for (const py::handle stride : facts["strides"].cast<py::tuple>()) {
      const std::int64_t bytes = stride.cast<std::int64_t>();
      strides.push_back(item_bytes > 0 && bytes % item_bytes == 0 ? bytes / item_bytes : -1);
    }
    if (strides.size() != tensor_.shape.size()) {
      refuse(subject, "strides", std::to_string(strides.size()) + " numbers",
             std::to_string(tensor_.shape.size()) + ", one for each extent");
    }
    tensor_.contiguous = is_contiguous(tensor_.shape, strides);
  }
  if (facts.contains("stream") && !facts["stream"].is_none()) {
    producer_stream_ = facts["stream"].cast<std::int64_t>();
  }
}

}  // namespace cgnrt
