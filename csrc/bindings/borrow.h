// Tensors that Python hands in, without copies: by the buffer protocol if an object has it, else by DLPack
// or, on a GPU, the CUDA array interface.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/tensor.h"

namespace cgnrt {

// Another owner's tensor, kept alive and in place while this lives. Destroy it with the GIL held.
class Borrowed {
 public:
  // Throws TypeError for an object that is not a tensor and ValueError for one that cannot be lent; `subject`
  // begins the message. Of a tensor that is not on the CPU only the device is known.
  Borrowed(const pybind11::handle& object, const std::string& subject);
  // Also a tensor on a CUDA device, to be used on that stream: the owner makes the stream wait for the work
  // on the tensor. By the CUDA array interface the device stays unknown (index -1), and the caller has to
  // wait for `producer_stream`.
  Borrowed(const pybind11::handle& object, const std::string& subject, std::int64_t cuda_stream);
  ~Borrowed();
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;

  const Tensor& tensor() const { return tensor_; }
  std::optional<std::int64_t> producer_stream() const { return producer_stream_; }

 private:
  void borrow(const pybind11::handle& object, const std::string& subject);
  bool borrow_buffer(const pybind11::handle& object);  // false: it has none
  void borrow_dlpack(const pybind11::handle& object, const std::string& subject);
  void borrow_cuda_array(const pybind11::handle& object, const std::string& subject);

  Tensor tensor_;
  std::optional<std::int64_t> cuda_stream_;
  std::optional<std::int64_t> producer_stream_;
  Py_buffer view_{};
  bool has_view_ = false;
  pybind11::object capsule_;
};

}  // namespace cgnrt
