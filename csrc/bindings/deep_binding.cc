// cgnrt._core.DeepEngine: the engine of deep picture networks.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/exchange.h"
#include "bindings/module.h"
#include "common/tensor.h"
#include "deep/network.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

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

const float* float_data(const Borrowed& borrowed, const std::string& subject) {
  require_plain(subject, borrowed.tensor());
  if (borrowed.tensor().dtype != DType::kFloat32) {
    refuse(subject, "dtype", borrowed.tensor().dtype_name, "float32");
  }
  return static_cast<const float*>(borrowed.tensor().data);
}

using Loans = std::vector<std::unique_ptr<Borrowed>>;

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
    const Borrowed bias(spec["bias"], subject + " bias");
    const float* data = float_data(bias, subject + " bias");
    step.bias.assign(data, data + bias.tensor().count());
  }
  step.before = affine_argument(spec, "before", subject);
  step.after = affine_argument(spec, "after", subject);
  step.residual = whole(spec, "residual", -1);
  step.residual_up = whole(spec, "residual_up", 0) != 0;
  step.last = affine_argument(spec, "last", subject);
  return step;
}

class DeepEngine {
 public:
  DeepEngine(const std::vector<int>& vector_widths, const std::vector<std::vector<int>>& pictures,
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

  // Of each step of the last run.
  std::vector<double> seconds() const { return seconds_; }

  // Of the pictures between steps.
  std::int64_t workspace_bytes() const { return deep::workspace_floats(network_) * 4; }

 private:
  std::vector<std::int64_t> shape_of(int picture, std::int64_t n) const {
    const deep::Picture& p = network_.pictures[picture];
    return {n, p.channels, p.height, p.width};
  }

  deep::Network network_;
  std::mutex turn_;
  std::vector<double> seconds_;
};

}  // namespace

void bind_deep(py::module_& module) {
  py::class_<DeepEngine>(module, "DeepEngine", "A deep picture network on the CPU, channels last.")
      .def(py::init<const std::vector<int>&, const std::vector<std::vector<int>>&,
                    const std::vector<py::dict>&, const std::vector<int>&, const py::object&,
                    const py::object&>(),
           py::arg("vector_widths"), py::arg("pictures"), py::arg("steps"), py::arg("outputs"), py::kw_only(),
           py::arg("image") = py::none(), py::arg("isa") = py::none())
      .def_property_readonly("methods", &DeepEngine::methods)
      .def_property_readonly("seconds", &DeepEngine::seconds)
      .def_property_readonly("workspace_bytes", &DeepEngine::workspace_bytes)
      .def("run", &DeepEngine::run_images, py::arg("vectors"), py::arg("image"), py::arg("n"),
           py::arg("outs"), py::kw_only(), py::arg("threads") = 0);
}

}  // namespace cgnrt
