#include <pybind11/pybind11.h>

#include "bindings/cuda_exchange.h"
#include "bindings/cuda_module.h"
#include "bindings/cuda_pixels.h"
#include "bindings/pixels.h"
#include "cuda/compose.h"
#include "ops/compose_call.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

ComposeDeviceArgs compose_device_args(const ComposeCall& call, const Tensor& out, std::int64_t n) {
  ComposeDeviceArgs args{};
  args.masks = call.masks.data;
  args.foregrounds = call.foregrounds.data;
  args.backgrounds = call.backgrounds.data;
  if (call.index) {
    args.index = call.index->data;
    args.index_is_wide = call.index->dtype == DType::kInt64;
  }
  if (call.rolls) {
    args.rolls = call.rolls->data;
    args.rolls_are_wide = call.rolls->dtype == DType::kInt64;
  }
  args.masks_count = call.masks.shape[0];
  args.foregrounds_count = call.foregrounds.shape[0];
  args.backgrounds_count = call.backgrounds.shape[0];
  args.out = out.data;
  args.n = n;
  args.channels = call.foregrounds.shape[1];
  args.height = call.masks.shape[2];
  args.width = call.masks.shape[3];
  args.input = call.masks.dtype;
  give_form(args, call, args.channels);
  return args;
}

py::object compose_on_device(const py::object& masks, const py::object& foregrounds,
                             const py::object& backgrounds, const py::object& index, const py::object& rolls,
                             const py::object& dtype, const py::object& layout, const py::object& scale,
                             const py::object& bias, const py::object& clamp, const py::object& out,
                             const py::object& stream) {
  CudaCall cuda_call(masks, "compose masks", stream);
  ComposeCall call;
  call.device = cuda_call.device();
  call.masks = cuda_call.input(masks, "compose masks");
  call.foregrounds = cuda_call.input(foregrounds, "compose foregrounds");
  call.backgrounds = cuda_call.input(backgrounds, "compose backgrounds");
  call.index = cuda_call.optional_input(index, "compose index");
  call.rolls = cuda_call.optional_input(rolls, "compose rolls");
  read_form(call, "compose", dtype, layout, scale, bias, clamp);
  const std::vector<std::int64_t> shape = compose_shape(call);
  require_device_channels("compose foregrounds", call.foregrounds.shape[1]);
  Tensor to;
  const py::object result = cuda_call.output(out, call.output, shape, "compose out", to);
  require_compose_out(call, to, shape);
  compose_cuda(compose_device_args(call, to, shape[0]), cuda_call.stream());
  cuda_call.finish();
  return result;
}

}  // namespace

void bind_cuda_compose(py::module_& module) {
  module.def("compose", &compose_on_device, py::arg("masks"), py::arg("foregrounds"), py::arg("backgrounds"),
             py::arg("index") = py::none(), py::kw_only(), py::arg("rolls") = py::none(),
             py::arg("dtype") = "float32", py::arg("layout") = "NCHW", py::arg("scale") = py::none(),
             py::arg("bias") = py::none(), py::arg("clamp") = py::none(), py::arg("out") = py::none(),
             py::arg("stream") = py::none(),
             "Blend foregrounds over backgrounds through soft masks; see cgnrt.ops.compose.");
}

}  // namespace cgnrt
