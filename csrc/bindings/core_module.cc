// cgnrt._core: the compiled part for the CPU.
#include <pybind11/stl.h>

#include <string>

#include "bindings/lend.h"
#include "bindings/module.h"
#include "common/cpu.h"
#include "common/cpu_quota.h"
#include "common/thread_pool.h"
#include "common/torch_team.h"

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
  module.doc() = "The compiled part of cgnrt for the CPU. cgnrt.ops is its public interface.";
  cgnrt::Binding::add_all(module);
  module.def("bfloat16_dlpack", &cgnrt::bfloat16_dlpack, pybind11::arg("bits"), pybind11::kw_only(),
             pybind11::arg("max_version") = pybind11::none(),
             "A DLPack capsule of dtype bfloat16 over the memory of a uint16 array.");
  module.def("use_torch_team", &cgnrt::use_torch_team, pybind11::arg("on"),
             "Whether calls from this thread run on the threads that PyTorch's operations run on.");
  module.def("build_info", &cgnrt::build_info,
             "What this build of the ops is and what it uses on this machine.");
  module.def(
      "cpu_quota", &cgnrt::cpu_quota, pybind11::arg("root"),
      "The CPUs that the cgroups of this process allow it, of the system whose files lie under `root`.");
}
