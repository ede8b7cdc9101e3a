// cgnrt._core.Engine: the engine of small image generators.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>
#include <string>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/exchange.h"
#include "bindings/module.h"
#include "common/tensor.h"
#include "engine/network.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

constexpr std::int64_t kMostSize = 1 << 20;

std::vector<float> floats(const py::handle& object, const std::string& subject) {
  const Borrowed borrowed(object, subject);
  const Tensor& tensor = borrowed.tensor();
  require_plain(subject, tensor);
  if (tensor.dtype != DType::kFloat32) refuse(subject, "dtype", tensor.dtype_name, "float32");
  const float* data = static_cast<const float*>(tensor.data);
  return {data, data + tensor.count()};
}

float number(const py::dict& spec, const char* key) { return py::cast<float>(spec[key]); }

Layer layer_argument(const py::dict& spec, const std::string& subject) {
  static const std::vector<std::string> kKinds = {"up_conv",    "conv3", "instance_norm",
                                                  "leaky_relu", "tanh",  "clip"};
  Layer layer;
  layer.kind = static_cast<LayerKind>(choice_argument(spec["kind"], subject + " kind", kKinds));
  if (layer.kind <= LayerKind::kInstanceNorm) {
    layer.weight = floats(spec["weight"], subject + " weight");
    layer.bias = floats(spec["bias"], subject + " bias");
  }
  if (spec.contains("slope")) layer.slope = number(spec, "slope");
  if (layer.kind == LayerKind::kInstanceNorm) layer.epsilon = number(spec, "epsilon");
  if (layer.kind == LayerKind::kClip) {
    layer.low = number(spec, "low");
    layer.high = number(spec, "high");
  }
  return layer;
}

class Engine {
 public:
  Engine(const std::vector<int>& input_widths, const py::object& weight, const py::object& bias,
         const std::vector<int>& shape, const std::vector<py::dict>& layers, const py::object& isa) {
    if (shape.size() != 3)
      refuse("engine shape", "length", std::to_string(shape.size()), "3 (channels, height, width)");
    for (const int width : input_widths) {
      if (width < 1 || width > kMostSize)
        refuse("engine inputs", "width", std::to_string(width), "1 or more");
    }
    network_.input_widths = input_widths;
    network_.linear_weight = floats(weight, "engine linear weight");
    network_.linear_bias = floats(bias, "engine linear bias");
    network_.first = {shape[0], shape[1], shape[2]};
    for (std::size_t k = 0; k < layers.size(); ++k) {
      network_.layers.push_back(layer_argument(layers[k], "engine layer " + std::to_string(k)));
    }
    const std::string name = isa.is_none() ? "" : py::cast<std::string>(isa);
    prepare(network_, isa.is_none() ? nullptr : name.c_str());
  }

  py::object run_images(const std::vector<py::object>& inputs, const py::object& out,
                        const py::object& threads) const {
    if (inputs.size() != network_.input_widths.size()) {
      refuse("engine inputs", "count", std::to_string(inputs.size()),
             std::to_string(network_.input_widths.size()));
    }
    const std::int64_t thread_count =
        integer_argument(threads, "engine threads", 0, std::numeric_limits<int>::max());
    std::vector<std::unique_ptr<Borrowed>> borrowed;
    std::vector<const float*> data;
    std::int64_t n = 0;
    for (std::size_t k = 0; k < inputs.size(); ++k) {
      const std::string subject = "engine input " + std::to_string(k);
      borrowed.push_back(std::make_unique<Borrowed>(inputs[k], subject));
      const Tensor& tensor = borrowed.back()->tensor();
      if (k == 0 && !tensor.shape.empty()) n = tensor.shape[0];
      const std::vector<std::int64_t> expected = {n, network_.input_widths[k]};
      require_plain(subject, tensor);
      if (tensor.dtype != DType::kFloat32) refuse(subject, "dtype", tensor.dtype_name, "float32");
      if (tensor.shape != expected) refuse(subject, "shape", to_string(tensor.shape), to_string(expected));
      data.push_back(static_cast<const float*>(tensor.data));
    }
    const std::vector<std::int64_t> shape = {n, network_.last.channels, network_.last.height,
                                             network_.last.width};
    const py::object result = out.is_none() ? new_array(DType::kFloat32, shape) : out;
    const Borrowed target(result, "engine out");
    require_out("engine out", target.tensor(), DType::kFloat32, shape);
    for (const auto& input : borrowed) require_apart("engine", target.tensor(), "an input", input->tensor());
    {
      py::gil_scoped_release unlocked;
      run(network_, data, n, static_cast<float*>(target.tensor().data), static_cast<int>(thread_count));
    }
    return result;
  }

  py::tuple output_shape() const {
    return py::make_tuple(network_.last.channels, network_.last.height, network_.last.width);
  }

 private:
  Network network_;
};

}  // namespace

void bind_engine(py::module_& module) {
  py::class_<Engine>(module, "Engine",
                     "A small image generator on the CPU: a linear layer, then convolutions.")
      .def(py::init<const std::vector<int>&, const py::object&, const py::object&, const std::vector<int>&,
                    const std::vector<py::dict>&, const py::object&>(),
           py::arg("input_widths"), py::arg("weight"), py::arg("bias"), py::arg("shape"), py::arg("layers"),
           py::kw_only(), py::arg("isa") = py::none())
      .def_property_readonly("output_shape", &Engine::output_shape)
      .def("run", &Engine::run_images, py::arg("inputs"), py::kw_only(), py::arg("out") = py::none(),
           py::arg("threads") = 0);
}

}  // namespace cgnrt
