#include <limits>

#include "bindings/arguments.h"
#include "bindings/exchange.h"
#include "bindings/module.h"
#include "ops/noise.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

constexpr std::int64_t kMaxUInt32 = std::numeric_limits<std::uint32_t>::max();

py::object draw(NoiseCall& call, const py::object& seed, const py::object& indices, const py::object& slot,
                const py::object& out) {
  const std::string operation = call.operation;
  const Borrowed indices_in(indices, operation + " indices");
  call.indices = indices_in.tensor();
  call.seed = seed_argument(seed, operation + " seed");
  call.slot = static_cast<std::uint32_t>(integer_argument(slot, operation + " slot", 0, kMaxUInt32));
  const std::vector<std::int64_t> shape = noise_shape(call);
  const py::object result = out.is_none() ? new_array(noise_dtype(call.kind), shape) : out;
  const Borrowed result_out(result, operation + " out");
  {
    py::gil_scoped_release unlocked;
    noise(call, result_out.tensor());
  }
  return result;
}

std::int64_t size_argument(const py::object& size, const std::string& operation) {
  return integer_argument(size, operation + " size", 0, kMaxUInt32);
}

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

py::object normal(const py::object& seed, const py::object& indices, const py::object& slot,
                  const py::object& size, const py::object& out, const std::string& implementation) {
  NoiseCall call;
  call.operation = "normal";
  call.kind = NoiseKind::kNormal;
  call.size = size_argument(size, call.operation);
  call.implementation = implementation;
  return draw(call, seed, indices, slot, out);
}

py::object truncated_normal(const py::object& seed, const py::object& indices, const py::object& slot,
                            const py::object& size, const py::object& out,
                            const std::string& implementation) {
  NoiseCall call;
  call.operation = "truncated_normal";
  call.kind = NoiseKind::kTruncatedNormal;
  call.size = size_argument(size, call.operation);
  call.implementation = implementation;
  return draw(call, seed, indices, slot, out);
}

py::object integers(const py::object& seed, const py::object& indices, const py::object& slot,
                    const py::object& bound, const py::object& size, const py::object& out,
                    const std::string& implementation) {
  NoiseCall call;
  call.operation = "integers";
  call.kind = NoiseKind::kIntegers;
  call.size = size_argument(size, call.operation);
  call.bounds = bounds_argument(bound);
  call.implementation = implementation;
  return draw(call, seed, indices, slot, out);
}

py::object philox(const py::object& seed, const py::object& indices, const py::object& slot,
                  const py::object& blocks, const py::object& out, const std::string& implementation) {
  NoiseCall call;
  call.operation = "philox";
  call.kind = NoiseKind::kWords;
  call.size = 4 * integer_argument(blocks, "philox blocks", 0, kMaxUInt32 / 4);
  call.implementation = implementation;
  return draw(call, seed, indices, slot, out);
}

}  // namespace

void bind_noise(py::module_& module) {
  module.def("normal", &normal, py::arg("seed"), py::arg("indices"), py::arg("slot"), py::arg("size"),
             py::kw_only(), py::arg("out") = py::none(), py::arg("implementation") = "auto",
             "Standard normal numbers; see cgnrt.ops.normal.");
  module.def("truncated_normal", &truncated_normal, py::arg("seed"), py::arg("indices"), py::arg("slot"),
             py::arg("size"), py::kw_only(), py::arg("out") = py::none(), py::arg("implementation") = "auto",
             "Normal numbers truncated to [-2, 2]; see cgnrt.ops.truncated_normal.");
  module.def("integers", &integers, py::arg("seed"), py::arg("indices"), py::arg("slot"), py::arg("bound"),
             py::arg("size") = 1, py::kw_only(), py::arg("out") = py::none(),
             py::arg("implementation") = "auto", "Uniform integers below a bound; see cgnrt.ops.integers.");
  module.def("philox", &philox, py::arg("seed"), py::arg("indices"), py::arg("slot"), py::arg("blocks"),
             py::kw_only(), py::arg("out") = py::none(), py::arg("implementation") = "auto",
             "The raw words; see cgnrt.ops.philox.");
}

}  // namespace cgnrt
