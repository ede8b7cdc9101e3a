#include "ops/noise.h"

#include <limits>

#include "bindings/arguments.h"
#include "bindings/module.h"
#include "bindings/op_call.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

constexpr std::int64_t kMaxUInt32 = std::numeric_limits<std::uint32_t>::max();

std::vector<std::uint32_t> bounds_argument(const py::object& bound) {
  constexpr std::int64_t kMaxBound = std::int64_t{1} << 31;
  const auto one = [](const py::handle& item) {
    return static_cast<std::uint32_t>(integer_argument(item, "integers bound", 1, kMaxBound));
  };
  if (!has_length(bound)) return {one(bound)};
  std::vector<std::uint32_t> bounds;
  for (const py::handle item : py::reinterpret_borrow<py::sequence>(bound)) bounds.push_back(one(item));
  return bounds;
}

// What the public functions have in common; `numbers` is what they call their size, in multiples of `unit`.
py::object draw(const char* operation, NoiseKind kind, const py::object& seed, const py::object& indices,
                const py::object& slot, const py::object& bound, const char* numbers, const py::object& size,
                std::int64_t unit, const py::object& out, const py::object& stream,
                const std::string& implementation) {
  const std::string name = operation;
  const auto op = begin_call(operation, indices, "indices", stream, implementation);
  NoiseCall call;
  call.operation = operation;
  call.target = op->target();
  call.kind = kind;
  call.seed = seed_argument(seed, name + " seed");
  call.slot = static_cast<std::uint32_t>(integer_argument(slot, name + " slot", 0, kMaxUInt32));
  call.size = unit * integer_argument(size, name + " " + numbers, 0, kMaxUInt32 / unit);
  if (kind == NoiseKind::kIntegers) call.bounds = bounds_argument(bound);
  call.indices = op->input(indices, name + " indices");
  check_noise(call);
  return op->run(out, noise_dtype(kind), call.shape, [&](const Tensor& to) { noise(call, to); });
}

py::object normal(const py::object& seed, const py::object& indices, const py::object& slot,
                  const py::object& size, const py::object& out, const py::object& stream,
                  const std::string& implementation) {
  return draw("normal", NoiseKind::kNormal, seed, indices, slot, py::none(), "size", size, 1, out, stream,
              implementation);
}

py::object truncated_normal(const py::object& seed, const py::object& indices, const py::object& slot,
                            const py::object& size, const py::object& out, const py::object& stream,
                            const std::string& implementation) {
  return draw("truncated_normal", NoiseKind::kTruncatedNormal, seed, indices, slot, py::none(), "size", size,
              1, out, stream, implementation);
}

py::object integers(const py::object& seed, const py::object& indices, const py::object& slot,
                    const py::object& bound, const py::object& size, const py::object& out,
                    const py::object& stream, const std::string& implementation) {
  return draw("integers", NoiseKind::kIntegers, seed, indices, slot, bound, "size", size, 1, out, stream,
              implementation);
}

py::object philox(const py::object& seed, const py::object& indices, const py::object& slot,
                  const py::object& blocks, const py::object& stream, const std::string& implementation) {
  return draw("philox", NoiseKind::kWords, seed, indices, slot, py::none(), "blocks", blocks, 4, py::none(),
              stream, implementation);
}

const Binding kNoiseBinding([](py::module_& module) {
  module.def("normal", &normal, py::arg("seed"), py::arg("indices"), py::arg("slot"), py::arg("size"),
             py::arg("out"), py::arg("stream"), py::arg("implementation") = "auto", "See cgnrt.ops.normal.");
  module.def("truncated_normal", &truncated_normal, py::arg("seed"), py::arg("indices"), py::arg("slot"),
             py::arg("size"), py::arg("out"), py::arg("stream"), py::arg("implementation") = "auto",
             "See cgnrt.ops.truncated_normal.");
  module.def("integers", &integers, py::arg("seed"), py::arg("indices"), py::arg("slot"), py::arg("bound"),
             py::arg("size"), py::arg("out"), py::arg("stream"), py::arg("implementation") = "auto",
             "See cgnrt.ops.integers.");
  module.def("philox", &philox, py::arg("seed"), py::arg("indices"), py::arg("slot"), py::arg("blocks"),
             py::arg("stream"), py::arg("implementation") = "auto", "See cgnrt.ops.philox.");
});

}  // namespace
}  // namespace cgnrt
