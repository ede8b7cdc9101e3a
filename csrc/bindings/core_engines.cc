// cgnrt._core.SmallGenerator and cgnrt._core.PictureNetwork: the native engines.
#include <pybind11/stl.h>

#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/borrow.h"
#include "bindings/lend.h"
#include "bindings/module.h"
#include "common/tensor.h"
#include "engines/deep/network.h"
#include "engines/small/generator.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

const float* float_data(const Borrowed& borrowed, const std::string& subject) {
  require_plain(subject, borrowed.tensor());
  if (borrowed.tensor().dtype != DType::kFloat32) {
    refuse(subject, "dtype", borrowed.tensor().dtype_name, "float32");
  }
  return static_cast<const float*>(borrowed.tensor().data);
}

// A copy of it.
std::vector<float> float_vector(const py::handle& object, const std::string& subject) {
  const Borrowed borrowed(object, subject);
  const float* data = float_data(borrowed, subject);
  return {data, data + borrowed.tensor().count()};
}

using Loans = std::vector<std::unique_ptr<Borrowed>>;

constexpr std::int64_t kMostSize = 1 << 20;

float number(const py::dict& spec, const char* key) { return py::cast<float>(spec[key]); }

small::Layer layer_argument(const py::dict& spec, const std::string& subject) {
  static const std::vector<std::string> kKinds = {"up_conv",    "conv3", "instance_norm",
                                                  "leaky_relu", "tanh",  "clip"};
  small::Layer layer;
  layer.kind = static_cast<small::LayerKind>(choice_argument(spec["kind"], subject + " kind", kKinds));
  if (layer.kind <= small::LayerKind::kInstanceNorm) {
    layer.weight = float_vector(spec["weight"], subject + " weight");
    layer.bias = float_vector(spec["bias"], subject + " bias");
  }
  if (spec.contains("wrap")) layer.wrap = py::cast<bool>(spec["wrap"]);
  if (spec.contains("slope")) layer.slope = number(spec, "slope");
  if (layer.kind == small::LayerKind::kInstanceNorm) layer.epsilon = number(spec, "epsilon");
  if (layer.kind == small::LayerKind::kClip) {
    layer.low = number(spec, "low");
    layer.high = number(spec, "high");
  }
  return layer;
}

class SmallGenerator {
 public:
  SmallGenerator(const std::vector<int>& input_widths, const py::object& weight, const py::object& bias,
                 const std::vector<int>& shape, const std::vector<py::dict>& layers, const py::object& isa) {
    if (shape.size() != 3)
      refuse("engine shape", "length", std::to_string(shape.size()), "3 (channels, height, width)");
    for (const int width : input_widths) {
      if (width < 1 || width > kMostSize)
        refuse("engine inputs", "width", std::to_string(width), "1 or more");
    }
    generator_.input_widths = input_widths;
    generator_.linear_weight = float_vector(weight, "engine linear weight");
    generator_.linear_bias = float_vector(bias, "engine linear bias");
    generator_.first = {shape[0], shape[1], shape[2]};
    for (std::size_t k = 0; k < layers.size(); ++k) {
      generator_.layers.push_back(layer_argument(layers[k], "engine layer " + std::to_string(k)));
    }
    const std::string name = isa.is_none() ? "" : py::cast<std::string>(isa);
    small::prepare(generator_, isa.is_none() ? nullptr : name.c_str());
  }

  py::object run_images(const std::vector<py::object>& inputs, const py::object& out,
                        const py::object& threads) const {
    if (inputs.size() != generator_.input_widths.size()) {
      refuse("engine inputs", "count", std::to_string(inputs.size()),
             std::to_string(generator_.input_widths.size()));
    }
    const std::int64_t thread_count =
        integer_argument(threads, "engine threads", 0, std::numeric_limits<int>::max());
    Loans borrowed;
    std::vector<const float*> data;
    std::int64_t n = 0;
    for (std::size_t k = 0; k < inputs.size(); ++k) {
      const std::string subject = "engine input " + std::to_string(k);
      borrowed.push_back(std::make_unique<Borrowed>(inputs[k], subject));
      const Tensor& tensor = borrowed.back()->tensor();
      if (k == 0 && !tensor.shape.empty()) n = tensor.shape[0];
      const std::vector<std::int64_t> expected = {n, generator_.input_widths[k]};
      data.push_back(float_data(*borrowed.back(), subject));
      if (tensor.shape != expected) refuse(subject, "shape", to_string(tensor.shape), to_string(expected));
    }
    const std::vector<std::int64_t> shape = {n, generator_.last.channels, generator_.last.height,
                                             generator_.last.width};
    const py::object result = out.is_none() ? new_array(DType::kFloat32, shape) : out;
    const Borrowed target(result, "engine out");
    require_out("engine out", target.tensor(), DType::kFloat32, shape);
    for (const auto& input : borrowed) require_apart("engine", target.tensor(), "an input", input->tensor());
    {
      py::gil_scoped_release unlocked;
      small::run(generator_, data, n, static_cast<float*>(target.tensor().data),
                 static_cast<int>(thread_count));
    }
    return result;
  }

  py::tuple output_shape() const {
    return py::make_tuple(generator_.last.channels, generator_.last.height, generator_.last.width);
  }

 private:
  small::SmallGenerator generator_;
};

constexpr int kMostWidth = 1 << 28;

int whole(const py::dict& spec, const char* key, int otherwise) {
  return spec.contains(key) ? py::cast<int>(spec[key]) : otherwise;
}

deep::Act act_argument(const py::handle& object, const std::string& subject) {
  deep::Act act;
  if (object.is_none()) return act;
  static const std::vector<std::string> kKinds = {"none", "leaky_relu", "tanh", "sigmoid", "clip"};
  const py::tuple given = py::cast<py::tuple>(object);
  act.kind = static_cast<deep::Activation>(choice_argument(given[0], subject + " activation", kKinds));
  if (given.size() > 1) act.low = py::cast<float>(given[1]);
  if (given.size() > 2) act.high = py::cast<float>(given[2]);
  return act;
}

// (scale, shift, activation): indices of vectors or None.
deep::Affine affine_argument(const py::dict& spec, const char* key, const std::string& subject) {
  deep::Affine affine;
  if (!spec.contains(key)) return affine;
  const py::tuple given = py::cast<py::tuple>(spec[key]);
  if (!given[0].is_none()) affine.scale = py::cast<int>(given[0]);
  if (!given[1].is_none()) affine.shift = py::cast<int>(given[1]);
  affine.act = act_argument(given[2], subject);
  return affine;
}

deep::Step step_argument(const py::dict& spec, const std::string& subject, Loans& loans) {
  static const std::vector<std::string> kKinds = {"start",    "image",  "conv",      "up_conv",
                                                  "max_pool", "resize", "attention", "pointwise"};
  deep::Step step;
  step.kind = static_cast<deep::StepKind>(choice_argument(spec["kind"], subject + " kind", kKinds));
  step.in = py::cast<std::vector<int>>(spec["in"]);
  step.out = py::cast<int>(spec["out"]);
  step.vector = whole(spec, "vector", -1);
  step.channels_last = whole(spec, "channels_last", 1) != 0;
  step.kernel = whole(spec, "kernel", 1);
  step.dilation = whole(spec, "dilation", 1);
  step.align_corners = whole(spec, "align_corners", 0) != 0;
  if (spec.contains("weight")) {
    loans.push_back(std::make_unique<Borrowed>(spec["weight"], subject + " weight"));
    step.weight = float_data(*loans.back(), subject + " weight");
    step.weight_count = loans.back()->tensor().count();
  }
  if (spec.contains("bias") && !spec["bias"].is_none()) {
    step.bias = float_vector(spec["bias"], subject + " bias");
  }
  step.before = affine_argument(spec, "before", subject);
  step.after = affine_argument(spec, "after", subject);
  step.residual = whole(spec, "residual", -1);
  step.residual_up = whole(spec, "residual_up", 0) != 0;
  step.last = affine_argument(spec, "last", subject);
  return step;
}

class PictureNetwork {
 public:
  PictureNetwork(const std::vector<int>& vector_widths, const std::vector<std::vector<int>>& pictures,
                 const std::vector<py::dict>& steps, const std::vector<int>& outputs, const py::object& image,
                 const py::object& isa) {
    for (const int width : vector_widths) {
      if (width < 1 || width > kMostWidth) {
        refuse("deep vectors", "width", std::to_string(width), "1 to " + std::to_string(kMostWidth));
      }
    }
    network_.vector_widths = vector_widths;
    for (const std::vector<int>& p : pictures) {
      if (p.size() != 5) {
        refuse("deep picture", "length", std::to_string(p.size()),
               "5 (channels, height, width, buffer, first channel)");
      }
      deep::Picture picture;
      picture.channels = p[0];
      picture.height = p[1];
      picture.width = p[2];
      picture.buffer = p[3];
      picture.first = p[4];
      network_.pictures.push_back(picture);
    }
    Loans loans;
    for (std::size_t k = 0; k < steps.size(); ++k) {
      network_.steps.push_back(step_argument(steps[k], "deep step " + std::to_string(k), loans));
    }
    network_.outputs = outputs;
    network_.image = image.is_none() ? -1 : py::cast<int>(image);
    const std::string name = isa.is_none() ? "" : py::cast<std::string>(isa);
    const char* const chosen = isa.is_none() ? nullptr : name.c_str();
    py::gil_scoped_release unlocked;
    deep::prepare(network_, chosen);
  }

  py::list run_images(const std::vector<py::object>& vectors, const py::object& image, const py::object& n,
                      const std::vector<py::object>& outs, const py::object& threads) {
    const std::int64_t count = integer_argument(n, "deep n", 0, 1 << 20);
    const int thread_count =
        static_cast<int>(integer_argument(threads, "deep threads", 0, std::numeric_limits<int>::max()));
    if (vectors.size() != network_.vector_widths.size()) {
      refuse("deep vectors", "count", std::to_string(vectors.size()),
             std::to_string(network_.vector_widths.size()));
    }
    Loans loans;
    const auto borrow = [&](const py::object& object, const std::string& subject,
                            const std::vector<std::int64_t>& shape) {
      loans.push_back(std::make_unique<Borrowed>(object, subject));
      const float* data = float_data(*loans.back(), subject);
      const std::vector<std::int64_t>& found = loans.back()->tensor().shape;
      if (found != shape) refuse(subject, "shape", to_string(found), to_string(shape));
      return data;
    };
    std::vector<const float*> vector_data;
    for (std::size_t k = 0; k < vectors.size(); ++k) {
      vector_data.push_back(
          borrow(vectors[k], "deep vector " + std::to_string(k), {count, network_.vector_widths[k]}));
    }
    const float* image_data = nullptr;
    if (network_.image >= 0) {
      image_data = borrow(image, "deep image", shape_of(network_.image, count));
    } else if (!image.is_none()) {
      refuse("deep image", "value", "an array", "None: the network takes none");
    }
    if (outs.size() != network_.outputs.size()) {
      refuse("deep outs", "count", std::to_string(outs.size()), std::to_string(network_.outputs.size()));
    }
    py::list results;
    std::vector<float*> targets;
    Loans written;
    for (std::size_t k = 0; k < outs.size(); ++k) {
      const std::string subject = "deep out " + std::to_string(k);
      const std::vector<std::int64_t> shape = shape_of(network_.outputs[k], count);
      const py::object result = outs[k].is_none() ? new_array(DType::kFloat32, shape) : outs[k];
      written.push_back(std::make_unique<Borrowed>(result, subject));
      require_out(subject, written.back()->tensor(), DType::kFloat32, shape);
      for (const auto& input : loans)
        require_apart("deep run", written.back()->tensor(), "an input", input->tensor());
      for (std::size_t j = 0; j < k; ++j) {
        require_apart("deep run", written.back()->tensor(), "another out", written[j]->tensor());
      }
      targets.push_back(static_cast<float*>(written.back()->tensor().data));
      results.append(result);
    }
    {
      py::gil_scoped_release unlocked;
      const std::lock_guard<std::mutex> turn(turn_);
      seconds_ = deep::run(network_, vector_data, image_data, count, targets, thread_count);
    }
    return results;
  }

  // (method, multiply-adds for an image) of each step.
  py::list methods() const {
    py::list found;
    for (const deep::Step& step : network_.steps) {
      found.append(py::make_tuple(deep::name_of_method(step), step.products));
    }
    return found;
  }

  // Seconds of each step in the last run; waits for one in another thread.
  std::vector<double> seconds() {
    const py::gil_scoped_release unlocked;
    const std::lock_guard<std::mutex> turn(turn_);
    return seconds_;
  }

  // Memory of the pictures between steps.
  std::int64_t workspace_bytes() const { return deep::workspace_floats(network_) * 4; }

 private:
  std::vector<std::int64_t> shape_of(int picture, std::int64_t n) const {
    const deep::Picture& p = network_.pictures[picture];
    return {n, p.channels, p.height, p.width};
  }

  deep::PictureNetwork network_;
  std::mutex turn_;
  std::vector<double> seconds_;
};

const Binding kEngines([](py::module_& module) {
  py::class_<SmallGenerator>(module, "SmallGenerator",
                             "A small image generator on the CPU: a linear layer, then convolutions.")
      .def(py::init<const std::vector<int>&, const py::object&, const py::object&, const std::vector<int>&,
                    const std::vector<py::dict>&, const py::object&>(),
           py::arg("input_widths"), py::arg("weight"), py::arg("bias"), py::arg("shape"), py::arg("layers"),
           py::kw_only(), py::arg("isa") = py::none())
      .def_property_readonly("output_shape", &SmallGenerator::output_shape)
      .def("run", &SmallGenerator::run_images, py::arg("inputs"), py::kw_only(), py::arg("out") = py::none(),
           py::arg("threads") = 0);

  py::class_<PictureNetwork>(module, "PictureNetwork", "A deep picture network on the CPU, channels last.")
      .def(py::init<const std::vector<int>&, const std::vector<std::vector<int>>&,
                    const std::vector<py::dict>&, const std::vector<int>&, const py::object&,
                    const py::object&>(),
           py::arg("vector_widths"), py::arg("pictures"), py::arg("steps"), py::arg("outputs"), py::kw_only(),
           py::arg("image") = py::none(), py::arg("isa") = py::none())
      .def_property_readonly("methods", &PictureNetwork::methods)
      .def_property_readonly("seconds", &PictureNetwork::seconds)
      .def_property_readonly("workspace_bytes", &PictureNetwork::workspace_bytes)
      .def("run", &PictureNetwork::run_images, py::arg("vectors"), py::arg("image"), py::arg("n"),
           py::arg("outs"), py::kw_only(), py::arg("threads") = 0);
});

}  // namespace
}  // namespace cgnrt
