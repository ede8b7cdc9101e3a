#include "bindings/pixels.h"

namespace py = pybind11;

namespace cgnrt {

DType dtype_argument(const py::object& object, const std::string& subject) {
  static constexpr DType kOutputs[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kUInt8};
  return kOutputs[choice_argument(object, subject, {"float32", "float16", "bfloat16", "uint8"})];
}

Layout layout_argument(const py::object& object, const std::string& subject) {
  static constexpr Layout kLayouts[] = {Layout::kNCHW, Layout::kNHWC};
  return kLayouts[choice_argument(object, subject, {"NCHW", "NHWC"})];
}

std::optional<std::pair<float, float>> clamp_argument(const py::object& object, const std::string& subject) {
  if (object.is_none()) return std::nullopt;
  const std::vector<float> values = floats_argument(object, subject);
  if (values.size() != 2) refuse(subject, "length", std::to_string(values.size()), "2, (low, high)");
  return std::make_pair(values[0], values[1]);
}

std::unique_ptr<Borrowed> borrow_optional(const py::object& object, const std::string& subject) {
  if (object.is_none()) return nullptr;
  return std::make_unique<Borrowed>(object, subject);
}

}  // namespace cgnrt
