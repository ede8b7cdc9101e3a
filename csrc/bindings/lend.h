// Memory of ours that leaves as a DLPack capsule.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bindings/dlpack.h"

namespace cgnrt {

// What a capsule keeps alive. Destroyed when the consumer is done, from any thread and without the GIL.
struct Lent {
  virtual ~Lent() = default;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;  // in items; filled in by lend()
};

// A capsule over `tensor`, whose shape and strides are taken from `lent`, C-contiguous. `max_version` is what
// the consumer gave to __dlpack__: None or (major, minor); only a versioned capsule can be read-only.
pybind11::capsule lend(std::unique_ptr<Lent> lent, dlpack::DLTensor tensor, bool readonly,
                       const pybind11::object& max_version, const std::string& subject);

}  // namespace cgnrt
