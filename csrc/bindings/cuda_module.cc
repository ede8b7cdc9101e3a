#include <pybind11/stl.h>

#include "bindings/arguments.h"
#include "bindings/module.h"
#include "cuda/check.h"
#include "cuda/memory.h"
#include "cuda/runtime.h"
#if defined(CGNRT_CUDA_EMULATED)
#include "control.h"
#include "scheduler.h"
#endif

namespace py = pybind11;

namespace cgnrt {
namespace {

py::dict info() {
  const CudaRuntime found = cuda_runtime();
  py::dict info;
  info["runtime"] = found.runtime;
  info["driver"] = found.driver.empty() ? py::object(py::none()) : py::str(found.driver);
  info["devices"] = found.devices;
  info["architectures"] = cuda_architectures();
#if defined(CGNRT_CUDA_EMULATED)
  info["emulated"] = true;
#else
  info["emulated"] = false;
#endif
  return info;
}

py::dict device(const py::object& index) {
  const int devices = cuda_runtime().devices;
  if (devices == 0) refuse("device", "index", std::string(py::str(index)), "none: no CUDA device is found");
  const CudaDevice found =
      cuda_device(static_cast<int>(integer_argument(index, "device index", 0, devices - 1)));
  py::dict facts;
  facts["name"] = found.name;
  facts["compute_capability"] = py::make_tuple(found.major, found.minor);
  facts["multiprocessors"] = found.multiprocessors;
  facts["l2_bytes"] = found.l2_bytes;
  facts["memory_bytes"] = found.memory_bytes;
  facts["free_bytes"] = found.free_bytes;
  return facts;
}

void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const DeviceMemoryError& error) {
    PyErr_SetString(PyExc_MemoryError, error.what());
  } catch (const CudaError& error) {
    // The package's own type, or any other once the package is gone, at the end of the interpreter.
    py::object type = py::reinterpret_borrow<py::object>(PyExc_RuntimeError);
    try {
      type = py::module_::import("cgnrt.errors").attr("BackendError");
    } catch (py::error_already_set&) {
    }
    PyErr_SetString(type.ptr(), error.what());
  }
}

}  // namespace
}  // namespace cgnrt

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "The CUDA part of cgnrt. cgnrt.cuda and cgnrt.ops are its public interface.";
  pybind11::register_local_exception_translator(&cgnrt::translate);
  cgnrt::bind_cuda_streams(module);
  cgnrt::bind_cuda_arrays(module);
  cgnrt::Binding::add_all(module);
  module.def("info", &cgnrt::info, "What this build is, and the driver and devices found now.");
  module.def("device", &cgnrt::device, pybind11::arg("index") = 0, "The facts of a device.");
  module.def(
      "set_device", &cgnrt::set_current_device, pybind11::arg("index"),
      "Makes a device current for this thread, for libraries that work on that; returns the one before.");
#if defined(CGNRT_CUDA_EMULATED)
  module.def("emulator_counters", [] {
    const emulator::Counters found = emulator::counters();
    return pybind11::make_tuple(found.synchronisations, found.used_bytes[0], found.used_bytes[1],
                                found.mappings);
  });
  // Python code instead of an engine: it runs when the stream reaches it.
  module.def("emulator_enqueue", [](const cgnrt::Stream& stream, const pybind11::function& call) {
    auto held = std::make_shared<pybind11::function>(call);
    emulator::enqueue(stream.handle(), [held]() mutable {
      const pybind11::gil_scoped_acquire gil;
      (*held)();
      held.reset();
    });
  });
  module.def("emulator_configure", &emulator::configure, pybind11::arg("memory_bytes") = std::size_t{1} << 30,
             pybind11::arg("devices") = 2, pybind11::arg("driver") = 13000);
#endif
}
