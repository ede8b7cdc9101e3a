#include "bindings/draws.h"
#include "bindings/exchange.h"
#include "bindings/module.h"
#include "ops/noise.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

py::object draw(NoiseCall call, const py::object& indices, const py::object& out,
                const std::string& implementation) {
  const std::string operation = call.operation;
  const Borrowed indices_in(indices, operation + " indices");
  call.indices = indices_in.tensor();
  call.implementation = implementation;
  const std::vector<std::int64_t> shape = noise_shape(call);
  const py::object result = out.is_none() ? new_array(noise_dtype(call.kind), shape) : out;
  const Borrowed result_out(result, operation + " out");
  {
    py::gil_scoped_release unlocked;
    noise(call, result_out.tensor());
  }
  return result;
}

py::object normal(const py::object& seed, const py::object& indices, const py::object& slot,
                  const py::object& size, const py::object& out, const std::string& implementation) {
  return draw(normal_call(seed, slot, size), indices, out, implementation);
}

py::object truncated_normal(const py::object& seed, const py::object& indices, const py::object& slot,
                            const py::object& size, const py::object& out,
                            const std::string& implementation) {
  return draw(truncated_normal_call(seed, slot, size), indices, out, implementation);
}

py::object integers(const py::object& seed, const py::object& indices, const py::object& slot,
                    const py::object& bound, const py::object& size, const py::object& out,
                    const std::string& implementation) {
  return draw(integers_call(seed, slot, bound, size), indices, out, implementation);
}

py::object philox(const py::object& seed, const py::object& indices, const py::object& slot,
                  const py::object& blocks, const py::object& out, const std::string& implementation) {
  return draw(philox_call(seed, slot, blocks), indices, out, implementation);
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
