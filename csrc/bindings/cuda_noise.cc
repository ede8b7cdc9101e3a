#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bindings/cuda_exchange.h"
#include "bindings/cuda_module.h"
#include "bindings/draws.h"
#include "cuda/noise.h"
#include "ops/checks.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

py::object draw_on_device(NoiseCall call, const py::object& indices, const py::object& out,
                          const py::object& stream) {
  const std::string operation = call.operation;
  CudaCall cuda_call(indices, operation + " indices", stream);
  call.device = cuda_call.device();
  call.indices = cuda_call.input(indices, operation + " indices");
  const std::vector<std::int64_t> shape = noise_shape(call);
  if (call.bounds.size() > kMaxDeviceBounds) {
    refuse(operation + " bound", "length", std::to_string(call.bounds.size()),
           "at most " + std::to_string(kMaxDeviceBounds) + " on a GPU", "Draw on the CPU.");
  }
  Tensor to;
  const py::object result = cuda_call.output(out, noise_dtype(call.kind), shape, operation + " out", to);
  require_noise_out(call, to, shape);

  NoiseDeviceArgs args{};
  args.kind = call.kind;
  args.seed = call.seed;
  args.indices = static_cast<const std::int64_t*>(call.indices.data);
  args.n = shape[0];
  args.slot = call.slot;
  args.size = call.size;
  args.bounds_count = static_cast<std::int64_t>(call.bounds.size());
  std::copy(call.bounds.begin(), call.bounds.end(), args.bounds);
  args.out = to.data;
  noise_cuda(args, cuda_call.stream());
  cuda_call.finish();
  return result;
}

py::object normal_on_device(const py::object& seed, const py::object& indices, const py::object& slot,
                            const py::object& size, const py::object& out, const py::object& stream) {
  return draw_on_device(normal_call(seed, slot, size), indices, out, stream);
}

py::object truncated_normal_on_device(const py::object& seed, const py::object& indices,
                                      const py::object& slot, const py::object& size, const py::object& out,
                                      const py::object& stream) {
  return draw_on_device(truncated_normal_call(seed, slot, size), indices, out, stream);
}

py::object integers_on_device(const py::object& seed, const py::object& indices, const py::object& slot,
                              const py::object& bound, const py::object& size, const py::object& out,
                              const py::object& stream) {
  return draw_on_device(integers_call(seed, slot, bound, size), indices, out, stream);
}

py::object philox_on_device(const py::object& seed, const py::object& indices, const py::object& slot,
                            const py::object& blocks, const py::object& out, const py::object& stream) {
  return draw_on_device(philox_call(seed, slot, blocks), indices, out, stream);
}

// An input of the steps on rows: on the call's device, of one dtype and so many dimensions.
Tensor rows_input(CudaCall& call, const py::object& object, const std::string& subject, DType dtype,
                  std::size_t dimensions, const char* rule) {
  const Tensor tensor = call.input(object, subject);
  require_device(subject, tensor, call.device());
  if (tensor.dtype != dtype) refuse(subject, "dtype", tensor.dtype_name, name_of(dtype));
  if (tensor.shape.size() != dimensions) refuse(subject, "shape", to_string(tensor.shape), rule);
  require_plain(subject, tensor);
  return tensor;
}

py::object gather_rows(const py::object& table, const py::object& index, const py::object& out,
                       const py::object& stream) {
  CudaCall call(table, "gather_rows table", stream);
  const Tensor from = rows_input(call, table, "gather_rows table", DType::kFloat32, 2, "(rows, columns)");
  const Tensor rows = rows_input(call, index, "gather_rows index", DType::kInt64, 1, "(n,)");
  const std::vector<std::int64_t> shape = {rows.shape[0], from.shape[1]};
  Tensor to;
  const py::object result = call.output(out, DType::kFloat32, shape, "gather_rows out", to);
  require_device("gather_rows out", to, call.device());
  require_out("gather_rows out", to, DType::kFloat32, shape);
  require_apart("gather_rows", to, "table", from);
  require_apart("gather_rows", to, "index", rows);
  gather_rows_cuda(static_cast<const float*>(from.data), from.shape[0], from.shape[1],
                   static_cast<const std::int64_t*>(rows.data), shape[0], static_cast<float*>(to.data),
                   call.stream());
  call.finish();
  return result;
}

py::object scale_rows(const py::object& values, const py::object& factors, const py::object& out,
                      const py::object& stream) {
  CudaCall call(values, "scale_rows values", stream);
  const Tensor from = rows_input(call, values, "scale_rows values", DType::kFloat32, 2, "(n, columns)");
  const Tensor by = rows_input(call, factors, "scale_rows factors", DType::kFloat32, 1, "(n,)");
  if (by.shape[0] != from.shape[0]) {
    refuse("scale_rows factors", "length", std::to_string(by.shape[0]),
           std::to_string(from.shape[0]) + ", one for each row");
  }
  Tensor to;
  const py::object result = call.output(out, DType::kFloat32, from.shape, "scale_rows out", to);
  require_device("scale_rows out", to, call.device());
  require_out("scale_rows out", to, DType::kFloat32, from.shape);
  if (to.data != from.data) require_apart("scale_rows", to, "values", from);
  require_apart("scale_rows", to, "factors", by);
  scale_rows_cuda(static_cast<const float*>(from.data), static_cast<const float*>(by.data), from.shape[0],
                  from.shape[1], static_cast<float*>(to.data), call.stream());
  call.finish();
  return result;
}

}  // namespace

void bind_cuda_noise(py::module_& module) {
  module.def("normal", &normal_on_device, py::arg("seed"), py::arg("indices"), py::arg("slot"),
             py::arg("size"), py::kw_only(), py::arg("out") = py::none(), py::arg("stream") = py::none(),
             "Standard normal numbers; see cgnrt.ops.normal.");
  module.def("truncated_normal", &truncated_normal_on_device, py::arg("seed"), py::arg("indices"),
             py::arg("slot"), py::arg("size"), py::kw_only(), py::arg("out") = py::none(),
             py::arg("stream") = py::none(),
             "Normal numbers truncated to [-2, 2]; see cgnrt.ops.truncated_normal.");
  module.def("integers", &integers_on_device, py::arg("seed"), py::arg("indices"), py::arg("slot"),
             py::arg("bound"), py::arg("size") = 1, py::kw_only(), py::arg("out") = py::none(),
             py::arg("stream") = py::none(), "Uniform integers below a bound; see cgnrt.ops.integers.");
  module.def("philox", &philox_on_device, py::arg("seed"), py::arg("indices"), py::arg("slot"),
             py::arg("blocks"), py::kw_only(), py::arg("out") = py::none(), py::arg("stream") = py::none(),
             "The raw words; see cgnrt.ops.philox.");
  module.def("gather_rows", &gather_rows, py::arg("table"), py::arg("index"), py::kw_only(),
             py::arg("out") = py::none(), py::arg("stream") = py::none(),
             "Rows (n, columns) of a (rows, columns) float32 table by (n,) int64; NaN for one not there.");
  module.def("scale_rows", &scale_rows, py::arg("values"), py::arg("factors"), py::kw_only(),
             py::arg("out") = py::none(), py::arg("stream") = py::none(),
             "Each row of (n, columns) float32 times its factor; `out` may be `values`.");
}

}  // namespace cgnrt
