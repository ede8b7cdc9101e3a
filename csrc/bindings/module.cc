// cgnrt._core: the compiled ops.
#include "bindings/module.h"

#include <pybind11/stl.h>

#include <string>

#include "bindings/arguments.h"
#include "bindings/exchange.h"
#include "common/cpu.h"
#include "common/thread_pool.h"
#include "ops/copy.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "unknown";
#endif
}

void copy_python(const py::object& source, const py::object& out, const py::object& threads, bool streams) {
  const Borrowed from(source, "copy source");
  const Borrowed to(out, "copy out");
  require_plain("copy source", from.tensor());
  require_out("copy out", to.tensor(), from.tensor().dtype, from.tensor().shape);
  require_apart("copy", to.tensor(), "source", from.tensor());
  const int count = static_cast<int>(integer_argument(threads, "copy threads", 0, 1024));
  py::gil_scoped_release unlocked;
  copy_bytes(to.tensor().data, from.tensor().data, from.tensor().bytes(), count, streams);
}

py::dict build_info() {
  py::list isas;
  for (const Isa isa : cpu_isas()) isas.append(name_of(isa));
  py::dict cpu;
  cpu["isa"] = name_of(cpu_isas().front());
  cpu["isas"] = isas;
  cpu["features"] = cpu_features();
  cpu["cpus"] = available_cpus();
  py::dict info;
  info["version"] = CGNRT_VERSION;
  info["compiler"] = compiler();
  info["cpu"] = cpu;
  return info;
}

}  // namespace
}  // namespace cgnrt

PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
  module.doc() = "The compiled ops of cgnrt. cgnrt.ops is their public face.";
  cgnrt::bind_compose(module);
  cgnrt::bind_deep(module);
  cgnrt::bind_engine(module);
  cgnrt::bind_noise(module);
  cgnrt::bind_patch_grid(module);
  module.def("bfloat16_dlpack", &cgnrt::bfloat16_dlpack, pybind11::arg("bits"), pybind11::kw_only(),
             pybind11::arg("max_version") = pybind11::none(),
             "A DLPack capsule of dtype bfloat16 over the memory of a uint16 array.");
  module.def("copy", &cgnrt::copy_python, pybind11::arg("source"), pybind11::arg("out"), pybind11::kw_only(),
             pybind11::arg("threads") = 0, pybind11::arg("streams") = false,
             "Copy a tensor: the yardstick of the benchmark of the ops.");
  module.def("build_info", &cgnrt::build_info,
             "What this build of the ops is and what it uses on this machine.");
}
