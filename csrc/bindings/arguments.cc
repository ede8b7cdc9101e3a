#include "bindings/arguments.h"

#include "common/tensor.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

// The argument's own name: the subject's last word.
std::string field_of(const std::string& subject) { return subject.substr(subject.rfind(' ') + 1); }

[[noreturn]] void refuse_type(const py::handle& object, const std::string& subject, const std::string& rule) {
  throw py::type_error(subject + ": type is " + Py_TYPE(object.ptr())->tp_name + ", expected " + rule + ".");
}

py::int_ index_of(const py::handle& object, const std::string& subject) {
  PyObject* index = PyNumber_Index(object.ptr());
  if (index == nullptr) {
    PyErr_Clear();
    refuse_type(object, subject, "an int");
  }
  return py::reinterpret_steal<py::int_>(index);
}

float float_of(const py::handle& object, const std::string& subject) {
  const double value = PyFloat_AsDouble(object.ptr());
  if (value == -1.0 && PyErr_Occurred()) {
    PyErr_Clear();
    refuse_type(object, subject, "a number, or one for each channel");
  }
  return static_cast<float>(value);
}

}  // namespace

std::int64_t integer_argument(const py::handle& object, const std::string& subject, std::int64_t low,
                              std::int64_t high) {
  const py::int_ index = index_of(object, subject);
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (overflow != 0 || value < low || value > high) {
    refuse(subject, field_of(subject), std::string(py::str(index)),
           std::to_string(low) + ".." + std::to_string(high));
  }
  return value;
}

std::uint64_t seed_argument(const py::handle& object, const std::string& subject) {
  const py::int_ index = index_of(object, subject);
  const unsigned long long value = PyLong_AsUnsignedLongLong(index.ptr());
  if (PyErr_Occurred()) {
    PyErr_Clear();
    refuse(subject, field_of(subject), std::string(py::str(index)), "0..2^64-1");
  }
  return value;
}

bool has_length(const py::handle& object) {
  if (!PySequence_Check(object.ptr())) return false;
  if (PySequence_Size(object.ptr()) >= 0) return true;
  PyErr_Clear();
  return false;
}

std::vector<float> floats_argument(const py::handle& object, const std::string& subject) {
  std::vector<float> values;
  if (object.is_none()) return values;
  if (!has_length(object)) return {float_of(object, subject)};
  for (const py::handle item : py::reinterpret_borrow<py::sequence>(object)) {
    values.push_back(float_of(item, subject));
  }
  if (values.empty()) refuse(subject, "length", "0", "one value for each channel");
  return values;
}

std::size_t choice_argument(const py::handle& object, const std::string& subject,
                            const std::vector<std::string>& choices) {
  std::string rule;
  for (const std::string& choice : choices) rule += (rule.empty() ? "'" : ", '") + choice + "'";
  if (!PyUnicode_Check(object.ptr())) refuse_type(object, subject, "one of " + rule);
  const std::string given = object.cast<std::string>();
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (given == choices[i]) return i;
  }
  refuse(subject, field_of(subject), "'" + given + "'", "one of " + rule);
}

PixelForm form_argument(const std::string& operation, const py::object& dtype, const py::object& layout,
                        const py::object& scale, const py::object& bias, const py::object& clamp) {
  static constexpr DType kOutputs[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kUInt8};
  PixelForm form;
  form.output =
      kOutputs[choice_argument(dtype, operation + " dtype", {"float32", "float16", "bfloat16", "uint8"})];
  form.layout =
      choice_argument(layout, operation + " layout", {"NCHW", "NHWC"}) == 0 ? Layout::kNCHW : Layout::kNHWC;
  form.scale = floats_argument(scale, operation + " scale");
  form.bias = floats_argument(bias, operation + " bias");
  if (!clamp.is_none()) {
    const std::vector<float> values = floats_argument(clamp, operation + " clamp");
    if (values.size() != 2) {
      refuse(operation + " clamp", "length", std::to_string(values.size()), "2, (low, high)");
    }
    form.clamp = std::make_pair(values[0], values[1]);
  }
  return form;
}

}  // namespace cgnrt
