// Streams, events and captured graphs as Python sees them.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>

#include "bindings/arguments.h"
#include "bindings/cuda_call.h"
#include "bindings/module.h"
#include "cuda/graph.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

constexpr std::int64_t kMaxDevice = 1 << 16;

int device_argument(const py::object& device, const std::string& subject) {
  return static_cast<int>(integer_argument(device, subject, 0, kMaxDevice));
}

std::shared_ptr<Stream> make_stream(const py::object& device, bool high_priority) {
  return Stream::create(device_argument(device, "Stream device"), high_priority);
}

std::shared_ptr<Stream> borrow_stream(const py::object& device, const py::object& handle) {
  return stream_argument(handle, device_argument(device, "Stream.borrow device"), "Stream.borrow handle");
}

// The other stream may be on another device: its events are then recorded there.
void wait_for(Stream& stream, Stream& other) {
  if (stream.device() == other.device()) {
    stream.wait_for(other.handle());
  } else {
    stream.wait(*other.record());
  }
}

// Other Python threads run while a call blocks the host.
using Unlocked = py::call_guard<py::gil_scoped_release>;

}  // namespace

void bind_cuda_streams(py::module_& module) {
  py::class_<Event, std::shared_ptr<Event>>(module, "Event", "A point in a stream.")
      .def("query", &Event::query, "Whether the stream got there.")
      .def("synchronize", &Event::synchronize, Unlocked(), "Block until the stream got there.")
      .def("elapsed_ms", &Event::milliseconds_since, py::arg("earlier"),
           "Milliseconds since an earlier event; both recorded with timing=True, and reached.");

  py::class_<Stream, std::shared_ptr<Stream>>(module, "Stream",
                                              "A non-blocking stream with a pool of memory of its own.")
      .def(py::init(&make_stream), py::arg("device") = 0, py::kw_only(), py::arg("high_priority") = false)
      .def_static(
          "borrow", &borrow_stream, py::arg("device"), py::arg("handle"),
          "Another library's stream by its handle; 0 and 1 are the legacy default stream. It is never "
          "destroyed here. All such streams of a device share a pool of memory.")
      .def_property_readonly("ptr",
                             [](const Stream& s) { return reinterpret_cast<std::uintptr_t>(s.handle()); })
      .def_property_readonly("device", &Stream::device)
      .def("synchronize", &Stream::synchronize, Unlocked(), "Block until all that it has been given is done.")
      .def("record", &Stream::record, py::arg("timing") = false)
      .def("wait", &Stream::wait, py::arg("event"),
           "Do nothing further before the event; blocks no host thread.")
      .def(
          "wait_for", [](Stream& self, Stream& other) { wait_for(self, other); }, py::arg("other"),
          "Do nothing further before what another stream has been given so far.")
      .def("trim", &Stream::trim, py::arg("bytes_to_keep") = 0,
           "Give memory that no array uses back to the device.")
      .def(
          "begin_capture", [](Stream& self) { begin_capture(self); },
          "Record what follows into a graph instead of running it, for this thread.")
      .def("end_capture", [](Stream& self) { return std::make_unique<Graph>(self); });

  py::class_<Graph>(module, "Graph",
                    "Captured work, to be run again and again with the addresses it was given.")
      .def("launch", &Graph::launch, py::arg("stream"));
}

}  // namespace cgnrt
