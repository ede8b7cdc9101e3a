// The small steps on rows between the noise and the networks, on a GPU.
#include <string>
#include <vector>

#include "bindings/cuda_call.h"
#include "bindings/module.h"
#include "cuda/rows.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

// An input on the call's device, of this dtype and so many dimensions.
Tensor rows_input(CudaCall& call, const py::object& object, const std::string& subject, DType dtype,
                  std::size_t dimensions, const char* rule) {
  const Tensor tensor = call.input(object, subject);
  require_device(subject, tensor, call.target().device);
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
  return call.run(out, DType::kFloat32, shape, [&](const Tensor& to) {
    require_device("gather_rows out", to, call.target().device);
    require_out("gather_rows out", to, DType::kFloat32, shape);
    require_apart("gather_rows", to, "table", from);
    require_apart("gather_rows", to, "index", rows);
    gather_rows_cuda(static_cast<const float*>(from.data), from.shape[0], from.shape[1],
                     static_cast<const std::int64_t*>(rows.data), shape[0], static_cast<float*>(to.data),
                     call.stream());
  });
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
  return call.run(out, DType::kFloat32, from.shape, [&](const Tensor& to) {
    require_device("scale_rows out", to, call.target().device);
    require_out("scale_rows out", to, DType::kFloat32, from.shape);
    if (to.data != from.data) require_apart("scale_rows", to, "values", from);
    require_apart("scale_rows", to, "factors", by);
    scale_rows_cuda(static_cast<const float*>(from.data), static_cast<const float*>(by.data), from.shape[0],
                    from.shape[1], static_cast<float*>(to.data), call.stream());
  });
}

const Binding kRows([](py::module_& module) {
  module.def("gather_rows", &gather_rows, py::arg("table"), py::arg("index"), py::kw_only(),
             py::arg("out") = py::none(), py::arg("stream") = py::none(),
             "Rows (n, columns) of a (rows, columns) float32 table by (n,) int64; NaN for one not there.");
  module.def("scale_rows", &scale_rows, py::arg("values"), py::arg("factors"), py::kw_only(),
             py::arg("out") = py::none(), py::arg("stream") = py::none(),
             "Each row of (n, columns) float32 times its factor; `out` may be `values`.");
});

}  // namespace
}  // namespace cgnrt
