// Tensors across the border to Python, without copies: by the buffer protocol where an object has it, else by
// DLPack or, on a GPU, the CUDA array interface.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/tensor.h"

namespace cgnrt {

// Somebody's tensor, kept alive and in place while this lives. Destroy it with the GIL held.
class Borrowed {
 public:
  // Throws TypeError for an object that is no tensor and ValueError for one that cannot be lent; `subject`
  // begins the message. A tensor on another device than the CPU is described by its device alone.
  Borrowed(const pybind11::handle& object, const std::string& subject);
  // Also a tensor on a CUDA device, to be used on that stream: its owner orders the stream behind what it has
  // given to others. By the CUDA array interface the device stays unknown (index -1), and `producer_stream`
  // is what the caller has to wait for.
  Borrowed(const pybind11::handle& object, const std::string& subject, std::int64_t cuda_stream);
  ~Borrowed();
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;

  const Tensor& tensor() const { return tensor_; }
  std::optional<std::int64_t> producer_stream() const { return producer_stream_; }

 private:
  void borrow(const pybind11::handle& object, const std::string& subject);
  bool borrow_buffer(const pybind11::handle& object);  // whether it lends one
  void borrow_dlpack(const pybind11::handle& object, const std::string& subject);
  void borrow_cuda_array(const pybind11::handle& object, const std::string& subject);

  Tensor tensor_;
  std::optional<std::int64_t> cuda_stream_;
  std::optional<std::int64_t> producer_stream_;
  Py_buffer view_{};
  bool has_view_ = false;
  pybind11::object capsule_;
};

// A new NumPy array of uninitialised memory aligned to 64 bytes; bfloat16 becomes uint16. Throws
// std::bad_alloc.
pybind11::object new_array(DType dtype, const std::vector<std::int64_t>& shape);

// A DLPack capsule of dtype bfloat16 over the memory of `bits`, a C-contiguous uint16 array, which it keeps
// alive. `max_version` is what the consumer gave to __dlpack__: None or (major, minor).
pybind11::capsule bfloat16_dlpack(const pybind11::object& bits, const pybind11::object& max_version);

}  // namespace cgnrt
