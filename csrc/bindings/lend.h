// What the modules hand out: new NumPy arrays, and DLPack capsules.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bindings/dlpack.h"
#include "common/scalar.h"

namespace cgnrt {

// What a capsule keeps alive. Destroyed when the consumer is done, from any thread and without the GIL.
struct Lent {
  virtual ~Lent() = default;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;  // in items; filled in by lend()
};

// A capsule of `tensor`, C-contiguous, with the shape of `lent`. `max_version` is the consumer's argument of
// __dlpack__: None or (major, minor); only a versioned capsule can be read-only.
pybind11::capsule lend(std::unique_ptr<Lent> lent, dlpack::DLTensor tensor, bool readonly,
                       const pybind11::object& max_version, const std::string& subject);

// A new NumPy array of uninitialised memory aligned to 64 bytes; bfloat16 becomes uint16. Throws
// std::bad_alloc.
pybind11::object new_array(DType dtype, const std::vector<std::int64_t>& shape);

// A DLPack capsule of dtype bfloat16 over the memory of `bits`, a C-contiguous uint16 array, which it keeps
// alive. `max_version` is as for lend().
pybind11::capsule bfloat16_dlpack(const pybind11::object& bits, const pybind11::object& max_version);

}  // namespace cgnrt
