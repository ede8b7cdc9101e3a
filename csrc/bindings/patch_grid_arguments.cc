#include "bindings/patch_grid_arguments.h"

#include <tuple>

#include "bindings/arguments.h"
#include "bindings/pixels.h"

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

}  // namespace

MosaicForm form_argument(const std::string& operation, const py::object& size, const py::object& dtype,
                         const py::object& layout, const py::object& scale, const py::object& bias,
                         const py::object& clamp) {
  MosaicForm form;
  std::tie(form.height, form.width) = sides_argument(size, operation + " size");
  read_form(form, operation, dtype, layout, scale, bias, clamp);
  return form;
}

void set_windows(PatchGridCall& call, const py::object& patch, const py::object& grid,
                 const py::object& top) {
  call.patch = integer_argument(patch, "patch_grid patch", 1, kMaxPatch);
  call.grid = integer_argument(grid, "patch_grid grid", 1, 64);
  call.top = integer_argument(top, "patch_grid top", 1, std::int64_t{1} << 31);
}

std::pair<py::object, py::object> over_argument(const py::object& over) {
  const std::size_t count = has_length(over) ? py::len(over) : 0;
  if (count != 2) refuse("patch_grid over", "length", std::to_string(count), "2, (masks, backgrounds)");
  const py::sequence pair = py::reinterpret_borrow<py::sequence>(over);
  return {pair[0], pair[1]};
}

}  // namespace cgnrt
