#include <pybind11/stl.h>

#include "bindings/arguments.h"
#include "bindings/exchange.h"
#include "bindings/module.h"
#include "bindings/pixels.h"
#include "ops/compose_call.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

py::object compose_python(const py::object& masks, const py::object& foregrounds,
                          const py::object& backgrounds, const py::object& index, const py::object& rolls,
                          const py::object& dtype, const py::object& layout, const py::object& scale,
                          const py::object& bias, const py::object& clamp, const py::object& out,
                          const py::object& threads, const std::string& implementation,
                          std::optional<bool> streams) {
  const Borrowed masks_in(masks, "compose masks");
  const Borrowed foregrounds_in(foregrounds, "compose foregrounds");
  const Borrowed backgrounds_in(backgrounds, "compose backgrounds");
  const auto index_in = borrow_optional(index, "compose index");
  const auto rolls_in = borrow_optional(rolls, "compose rolls");
  ComposeCall call;
  call.masks = masks_in.tensor();
  call.foregrounds = foregrounds_in.tensor();
  call.backgrounds = backgrounds_in.tensor();
  if (index_in) call.index = index_in->tensor();
  if (rolls_in) call.rolls = rolls_in->tensor();
  read_form(call, "compose", dtype, layout, scale, bias, clamp);
  call.threads = static_cast<int>(integer_argument(threads, "compose threads", 0, 1024));
  call.implementation = implementation;
  if (streams) call.streaming = *streams ? Streaming::kAlways : Streaming::kNever;
  const std::vector<std::int64_t> shape = compose_shape(call);
  const py::object result = out.is_none() ? new_array(call.output, shape) : out;
  const Borrowed result_out(result, "compose out");
  {
    py::gil_scoped_release unlocked;
    compose(call, result_out.tensor());
  }
  return result;
}

}  // namespace

void bind_compose(py::module_& module) {
  module.def("compose", &compose_python, py::arg("masks"), py::arg("foregrounds"), py::arg("backgrounds"),
             py::arg("index") = py::none(), py::kw_only(), py::arg("rolls") = py::none(),
             py::arg("dtype") = "float32", py::arg("layout") = "NCHW", py::arg("scale") = py::none(),
             py::arg("bias") = py::none(), py::arg("clamp") = py::none(), py::arg("out") = py::none(),
             py::arg("threads") = 0, py::arg("implementation") = "auto", py::arg("streams") = py::none(),
             "Blend foregrounds over backgrounds through soft masks; see cgnrt.ops.compose.");
}

}  // namespace cgnrt
