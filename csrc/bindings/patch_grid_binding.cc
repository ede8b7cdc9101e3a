#include <pybind11/stl.h>

#include <memory>

#include "bindings/arguments.h"
#include "bindings/exchange.h"
#include "bindings/module.h"
#include "bindings/patch_grid_arguments.h"
#include "bindings/pixels.h"
#include "ops/patch_grid_call.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

void set_variant(MosaicForm& form, const std::string& operation, const py::object& threads,
                 const std::string& implementation) {
  form.threads = static_cast<int>(integer_argument(threads, operation + " threads", 0, 1024));
  form.implementation = implementation;
}

py::object patch_grid_python(const py::object& masks, const py::object& images, const py::object& picks,
                             const py::object& index, const py::object& size, const py::object& patch,
                             const py::object& grid, const py::object& top, const py::object& over,
                             const py::object& dtype, const py::object& layout, const py::object& scale,
                             const py::object& bias, const py::object& clamp, const py::object& out,
                             const py::object& threads, const std::string& implementation) {
  const Borrowed masks_in(masks, "patch_grid masks");
  const Borrowed images_in(images, "patch_grid images");
  const Borrowed picks_in(picks, "patch_grid picks");
  const auto index_in = borrow_optional(index, "patch_grid index");
  std::unique_ptr<Borrowed> over_in, grounds_in;
  if (!over.is_none()) {
    const auto [over_masks, grounds] = over_argument(over);
    over_in = std::make_unique<Borrowed>(over_masks, "patch_grid over's masks");
    grounds_in = std::make_unique<Borrowed>(grounds, "patch_grid over's backgrounds");
  }
  PatchGridCall call;
  call.masks = masks_in.tensor();
  call.images = images_in.tensor();
  call.picks = picks_in.tensor();
  if (index_in) call.index = index_in->tensor();
  if (over_in) call.over = over_in->tensor();
  if (over_in) call.grounds = grounds_in->tensor();
  set_windows(call, patch, grid, top);
  call.form = form_argument("patch_grid", size, dtype, layout, scale, bias, clamp);
  set_variant(call.form, "patch_grid", threads, implementation);
  const std::vector<std::int64_t> shape = patch_grid_shape(call);
  const py::object result = out.is_none() ? new_array(call.form.output, shape) : out;
  const Borrowed result_out(result, "patch_grid out");
  {
    py::gil_scoped_release unlocked;
    patch_grid(call, result_out.tensor());
  }
  return result;
}

py::object resize_python(const py::object& images, const py::object& size, const py::object& dtype,
                         const py::object& layout, const py::object& scale, const py::object& bias,
                         const py::object& clamp, const py::object& out, const py::object& threads,
                         const std::string& implementation) {
  const Borrowed images_in(images, "resize images");
  ResizeCall call;
  call.images = images_in.tensor();
  call.form = form_argument("resize", size, dtype, layout, scale, bias, clamp);
  set_variant(call.form, "resize", threads, implementation);
  const std::vector<std::int64_t> shape = resize_shape(call);
  const py::object result = out.is_none() ? new_array(call.form.output, shape) : out;
  const Borrowed result_out(result, "resize out");
  {
    py::gil_scoped_release unlocked;
    resize(call, result_out.tensor());
  }
  return result;
}

}  // namespace

void bind_patch_grid(py::module_& module) {
  module.def("patch_grid", &patch_grid_python, py::arg("masks"), py::arg("images"), py::arg("picks"),
             py::arg("index") = py::none(), py::kw_only(), py::arg("size") = 256, py::arg("patch") = 15,
             py::arg("grid") = 6, py::arg("top") = 100, py::arg("over") = py::none(),
             py::arg("dtype") = "float32", py::arg("layout") = "NCHW", py::arg("scale") = py::none(),
             py::arg("bias") = py::none(), py::arg("clamp") = py::none(), py::arg("out") = py::none(),
             py::arg("threads") = 0, py::arg("implementation") = "auto",
             "Textures of an object's own pixels; see cgnrt.ops.patch_grid.");
  module.def("resize", &resize_python, py::arg("images"), py::arg("size"), py::kw_only(),
             py::arg("dtype") = "float32", py::arg("layout") = "NCHW", py::arg("scale") = py::none(),
             py::arg("bias") = py::none(), py::arg("clamp") = py::none(), py::arg("out") = py::none(),
             py::arg("threads") = 0, py::arg("implementation") = "auto",
             "Bicubic scaling; see cgnrt.ops.resize.");
}

}  // namespace cgnrt
