#include "ops/patch_grid.h"

#include <tuple>
#include <utility>

#include "bindings/arguments.h"
#include "bindings/module.h"
#include "bindings/op_call.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

constexpr std::int64_t kMaxSide = 1 << 16;

// A side, or (height, width).
std::pair<std::int64_t, std::int64_t> sides_argument(const py::object& object, const std::string& subject) {
  if (!has_length(object)) {
    const std::int64_t side = integer_argument(object, subject, 1, kMaxSide);
    return {side, side};
  }
  const py::sequence sides = py::reinterpret_borrow<py::sequence>(object);
  if (sides.size() != 2) refuse(subject, "length", std::to_string(sides.size()), "2, (height, width)");
  return {integer_argument(sides[0], subject, 1, kMaxSide), integer_argument(sides[1], subject, 1, kMaxSide)};
}

// (masks, backgrounds)
std::pair<py::object, py::object> over_argument(const py::object& over) {
  const std::size_t count = has_length(over) ? py::len(over) : 0;
  if (count != 2) refuse("patch_grid over", "length", std::to_string(count), "2, (masks, backgrounds)");
  const py::sequence pair = py::reinterpret_borrow<py::sequence>(over);
  return {pair[0], pair[1]};
}

py::object patch_grid_from_python(const py::object& masks, const py::object& images, const py::object& picks,
                                  const py::object& index, const py::object& size, const py::object& patch,
                                  const py::object& grid, const py::object& top, const py::object& over,
                                  const py::object& dtype, const py::object& layout, const py::object& scale,
                                  const py::object& bias, const py::object& clamp, const py::object& out,
                                  const py::object& threads, const py::object& stream,
                                  const std::string& implementation) {
  const auto op = begin_call("patch_grid", masks, "masks", stream, implementation, threads);
  PatchGridCall call;
  call.target = op->target();
  call.masks = op->input(masks, "patch_grid masks");
  call.images = op->input(images, "patch_grid images");
  call.picks = op->input(picks, "patch_grid picks");
  call.index = op->optional_input(index, "patch_grid index");
  if (!over.is_none()) {
    const auto [over_masks, grounds] = over_argument(over);
    call.over = op->input(over_masks, "patch_grid over's masks");
    call.grounds = op->input(grounds, "patch_grid over's backgrounds");
  }
  call.patch = integer_argument(patch, "patch_grid patch", 1, kMaxPatch);
  call.grid = integer_argument(grid, "patch_grid grid", 1, 64);
  call.top = integer_argument(top, "patch_grid top", 1, std::int64_t{1} << 31);
  std::tie(call.height, call.width) = sides_argument(size, "patch_grid size");
  call.form = form_argument("patch_grid", dtype, layout, scale, bias, clamp);
  check_patch_grid(call);
  return op->run(out, call.form.output, call.shape, [&](const Tensor& to) { patch_grid(call, to); });
}

py::object resize_from_python(const py::object& images, const py::object& size, const py::object& dtype,
                              const py::object& layout, const py::object& scale, const py::object& bias,
                              const py::object& clamp, const py::object& out, const py::object& threads,
                              const py::object& stream, const std::string& implementation) {
  const auto op = begin_call("resize", images, "images", stream, implementation, threads);
  ResizeCall call;
  call.target = op->target();
  call.images = op->input(images, "resize images");
  std::tie(call.height, call.width) = sides_argument(size, "resize size");
  call.form = form_argument("resize", dtype, layout, scale, bias, clamp);
  check_resize(call);
  return op->run(out, call.form.output, call.shape, [&](const Tensor& to) { resize(call, to); });
}

const Binding kPatchGridBinding([](py::module_& module) {
  module.def("patch_grid", &patch_grid_from_python, py::arg("masks"), py::arg("images"), py::arg("picks"),
             py::arg("index"), py::arg("size"), py::arg("patch"), py::arg("grid"), py::arg("top"),
             py::arg("over"), py::arg("dtype"), py::arg("layout"), py::arg("scale"), py::arg("bias"),
             py::arg("clamp"), py::arg("out"), py::arg("threads"), py::arg("stream"),
             py::arg("implementation") = "auto", "See cgnrt.ops.patch_grid.");
  module.def("resize", &resize_from_python, py::arg("images"), py::arg("size"), py::arg("dtype"),
             py::arg("layout"), py::arg("scale"), py::arg("bias"), py::arg("clamp"), py::arg("out"),
             py::arg("threads"), py::arg("stream"), py::arg("implementation") = "auto",
             "See cgnrt.ops.resize.");
});

}  // namespace
}  // namespace cgnrt
