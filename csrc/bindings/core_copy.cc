// cgnrt._core.copy: the fastest plain copy that the threads of the ops can make. The benchmark compares with
// it.
#include <algorithm>
#include <cstring>

#include "bindings/arguments.h"
#include "bindings/borrow.h"
#include "bindings/module.h"
#include "common/thread_pool.h"

#if defined(__SSE2__) && !defined(CGNRT_PORTABLE)
#define CGNRT_X86 1
#include <emmintrin.h>
#endif

namespace py = pybind11;

namespace cgnrt {
namespace {

constexpr std::int64_t kTaskBytes = 256 << 10;

void copy_run(unsigned char* to, const unsigned char* from, std::int64_t bytes, bool streams) {
  std::int64_t at = 0;
#if defined(CGNRT_X86)
  if (streams && reinterpret_cast<std::uintptr_t>(to) % 16 == 0) {
    for (; at + 64 <= bytes; at += 64) {
      for (int part = 0; part < 64; part += 16) {
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + at + part),
                         _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at + part)));
      }
    }
    _mm_sfence();
  }
#else
  static_cast<void>(streams);
#endif
  std::memcpy(to + at, from + at, static_cast<std::size_t>(bytes - at));
}

// `streams` writes around the cache.
void copy_bytes(void* to, const void* from, std::int64_t bytes, int threads, bool streams) {
  const std::int64_t tasks = (bytes + kTaskBytes - 1) / kTaskBytes;
  parallel_for(tasks, threads > 0 ? threads : available_cpus(), [=](std::int64_t task) {
    const std::int64_t start = task * kTaskBytes;
    copy_run(static_cast<unsigned char*>(to) + start, static_cast<const unsigned char*>(from) + start,
             std::min(kTaskBytes, bytes - start), streams);
  });
}

void copy(const py::object& source, const py::object& out, const py::object& threads, bool streams) {
  const Borrowed from(source, "copy source");
  const Borrowed to(out, "copy out");
  require_plain("copy source", from.tensor());
  require_out("copy out", to.tensor(), from.tensor().dtype, from.tensor().shape);
  require_apart("copy", to.tensor(), "source", from.tensor());
  const int count = static_cast<int>(integer_argument(threads, "copy threads", 0, 1024));
  const py::gil_scoped_release unlocked;
  copy_bytes(to.tensor().data, from.tensor().data, from.tensor().bytes(), count, streams);
}

const Binding kCopy([](py::module_& module) {
  module.def("copy", &copy, py::arg("source"), py::arg("out"), py::kw_only(), py::arg("threads") = 0,
             py::arg("streams") = false, "Copy a tensor; the benchmark of the ops compares with it.");
});

}  // namespace
}  // namespace cgnrt
