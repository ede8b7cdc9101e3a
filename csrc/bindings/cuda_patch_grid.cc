#include <pybind11/pybind11.h>

#include "bindings/cuda_exchange.h"
#include "bindings/cuda_module.h"
#include "bindings/cuda_pixels.h"
#include "bindings/patch_grid_arguments.h"
#include "cuda/patch_grid.h"
#include "ops/patch_grid_call.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

// What the kernels ask beyond what every device asks.
void require_device_picture(const std::string& subject, const Tensor& images) {
  const std::vector<std::int64_t>& s = images.shape;
  require_device_channels(subject, s[1]);
  if (s[2] * s[3] > kMaxDevicePixels) {
    refuse(subject, "shape", to_string(s), "at most 2^30 pixels in a picture on a GPU");
  }
}

PatchGridDeviceArgs mosaic_device_args(const MosaicForm& form, const Tensor& images, const Tensor& out) {
  PatchGridDeviceArgs args{};
  args.images = static_cast<const float*>(images.data);
  args.sources = images.shape[0];
  args.n = out.shape[0];
  args.channels = images.shape[1];
  args.height = images.shape[2];
  args.width = images.shape[3];
  args.result_height = form.height;
  args.result_width = form.width;
  args.out = out.data;
  give_form(args, form, args.channels);
  return args;
}

void set_tiles(PatchGridDeviceArgs& args, const PatchGridCall& call) {
  args.masks = static_cast<const float*>(call.masks.data);
  args.picks = call.picks.data;
  args.picks_are_wide = call.picks.dtype == DType::kInt64;
  if (call.index) {
    args.index = call.index->data;
    args.index_is_wide = call.index->dtype == DType::kInt64;
  }
  args.patch = call.patch;
  args.grid = call.grid;
  args.top = call.top;
  if (call.over) {
    args.blend_masks = static_cast<const float*>(call.over->data);
    args.backgrounds = static_cast<const float*>(call.grounds->data);
    args.blend_masks_count = call.over->shape[0];
    args.backgrounds_count = call.grounds->shape[0];
  }
}

py::object patch_grid_on_device(const py::object& masks, const py::object& images, const py::object& picks,
                                const py::object& index, const py::object& size, const py::object& patch,
                                const py::object& grid, const py::object& top, const py::object& over,
                                const py::object& dtype, const py::object& layout, const py::object& scale,
                                const py::object& bias, const py::object& clamp, const py::object& out,
                                const py::object& stream) {
  CudaCall cuda_call(masks, "patch_grid masks", stream);
  PatchGridCall call;
  call.masks = cuda_call.input(masks, "patch_grid masks");
  call.images = cuda_call.input(images, "patch_grid images");
  call.picks = cuda_call.input(picks, "patch_grid picks");
  call.index = cuda_call.optional_input(index, "patch_grid index");
  if (!over.is_none()) {
    const auto [over_masks, grounds] = over_argument(over);
    call.over = cuda_call.input(over_masks, "patch_grid over's masks");
    call.grounds = cuda_call.input(grounds, "patch_grid over's backgrounds");
  }
  set_windows(call, patch, grid, top);
  call.form = form_argument("patch_grid", size, dtype, layout, scale, bias, clamp);
  call.form.device = cuda_call.device();
  const std::vector<std::int64_t> shape = patch_grid_shape(call);
  require_device_picture("patch_grid images", call.images);
  Tensor result;
  const py::object given = cuda_call.output(out, call.form.output, shape, "patch_grid out", result);
  require_patch_grid_out(call, result, shape);
  PatchGridDeviceArgs args = mosaic_device_args(call.form, call.images, result);
  set_tiles(args, call);
  if (args.n > 0)
    patch_grid_cuda(args, cuda_call.scratch(patch_grid_scratch_bytes(args)), cuda_call.stream());
  cuda_call.finish();
  return given;
}

py::object resize_on_device(const py::object& images, const py::object& size, const py::object& dtype,
                            const py::object& layout, const py::object& scale, const py::object& bias,
                            const py::object& clamp, const py::object& out, const py::object& stream) {
  CudaCall cuda_call(images, "resize images", stream);
  ResizeCall call;
  call.images = cuda_call.input(images, "resize images");
  call.form = form_argument("resize", size, dtype, layout, scale, bias, clamp);
  call.form.device = cuda_call.device();
  const std::vector<std::int64_t> shape = resize_shape(call);
  require_device_picture("resize images", call.images);
  Tensor result;
  const py::object given = cuda_call.output(out, call.form.output, shape, "resize out", result);
  require_resize_out(call, result, shape);
  patch_grid_cuda(mosaic_device_args(call.form, call.images, result), nullptr, cuda_call.stream());
  cuda_call.finish();
  return given;
}

}  // namespace

void bind_cuda_patch_grid(py::module_& module) {
  module.def("patch_grid", &patch_grid_on_device, py::arg("masks"), py::arg("images"), py::arg("picks"),
             py::arg("index") = py::none(), py::kw_only(), py::arg("size") = 256, py::arg("patch") = 15,
             py::arg("grid") = 6, py::arg("top") = 100, py::arg("over") = py::none(),
             py::arg("dtype") = "float32", py::arg("layout") = "NCHW", py::arg("scale") = py::none(),
             py::arg("bias") = py::none(), py::arg("clamp") = py::none(), py::arg("out") = py::none(),
             py::arg("stream") = py::none(), "Textures of an object's own pixels; see cgnrt.ops.patch_grid.");
  module.def("resize", &resize_on_device, py::arg("images"), py::arg("size"), py::kw_only(),
             py::arg("dtype") = "float32", py::arg("layout") = "NCHW", py::arg("scale") = py::none(),
             py::arg("bias") = py::none(), py::arg("clamp") = py::none(), py::arg("out") = py::none(),
             py::arg("stream") = py::none(), "Bicubic scaling; see cgnrt.ops.resize.");
}

}  // namespace cgnrt
