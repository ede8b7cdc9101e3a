// One call of an op from Python, the same for every device: the file that binds an op is compiled into both
// modules.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/tensor.h"

namespace cgnrt {

// Keeps the tensors of a call alive. Destroy it with the GIL held.
class OpCall {
 public:
  virtual ~OpCall() = default;
  OpCall(const OpCall&) = delete;
  OpCall& operator=(const OpCall&) = delete;

  const Target& target() const { return target_; }

  // A tensor on the call's device; of one elsewhere, its device only. `subject` begins messages ("compose
  // masks").
  virtual Tensor input(const pybind11::handle& object, const std::string& subject) = 0;
  std::optional<Tensor> optional_input(const pybind11::handle& object, const std::string& subject) {
    if (object.is_none()) return std::nullopt;
    return input(object, subject);
  }

  // Runs `body` with the tensor to write to: `out`, or a new one if it is None. Returns that as a Python
  // object.
  virtual pybind11::object run(const pybind11::object& out, DType dtype,
                               const std::vector<std::int64_t>& shape,
                               const std::function<void(const Tensor&)>& body) = 0;

 protected:
  OpCall() = default;
  Target target_;
};

// Begins a call of `operation`; `first` is its first tensor, named `name`. `implementation` and `threads` are
// for the CPU, `stream` for a GPU. core_call.cc has it for cgnrt._core, cuda_call.cc for cgnrt._cuda.
std::unique_ptr<OpCall> begin_call(const char* operation, const pybind11::object& first, const char* name,
                                   const pybind11::object& stream, const std::string& implementation,
                                   const pybind11::object& threads = {});

}  // namespace cgnrt
