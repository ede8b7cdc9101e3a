#include "ops/compose.h"

#include <pybind11/stl.h>

#include "bindings/arguments.h"
#include "bindings/module.h"
#include "bindings/op_call.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

py::object compose_from_python(const py::object& masks, const py::object& foregrounds,
                               const py::object& backgrounds, const py::object& index,
                               const py::object& rolls, const py::object& place, const py::object& dtype,
                               const py::object& layout, const py::object& scale, const py::object& bias,
                               const py::object& clamp, const py::object& out, const py::object& threads,
                               const py::object& stream, const std::string& implementation,
                               std::optional<bool> streams) {
  const auto op = begin_call("compose", masks, "masks", stream, implementation, threads);
  ComposeCall call;
  call.target = op->target();
  call.masks = op->input(masks, "compose masks");
  call.foregrounds = op->input(foregrounds, "compose foregrounds");
  call.backgrounds = op->input(backgrounds, "compose backgrounds");
  call.index = op->optional_input(index, "compose index");
  call.rolls = op->optional_input(rolls, "compose rolls");
  call.place = op->optional_input(place, "compose place");
  call.form = form_argument("compose", dtype, layout, scale, bias, clamp);
  if (streams) call.streaming = *streams ? Streaming::kAlways : Streaming::kNever;
  check_compose(call);
  return op->run(out, call.form.output, call.shape, [&](const Tensor& to) { compose(call, to); });
}

const Binding kComposeBinding([](py::module_& module) {
  module.def("compose", &compose_from_python, py::arg("masks"), py::arg("foregrounds"),
             py::arg("backgrounds"), py::arg("index"), py::arg("rolls"), py::arg("place"), py::arg("dtype"),
             py::arg("layout"), py::arg("scale"), py::arg("bias"), py::arg("clamp"), py::arg("out"),
             py::arg("threads"), py::arg("stream"), py::arg("implementation") = "auto",
             py::arg("streams") = py::none(), "See cgnrt.ops.compose.");
});

}  // namespace
}  // namespace cgnrt
