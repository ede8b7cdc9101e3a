#include "bindings/draws.h"

#include <limits>
#include <string>
#include <vector>

#include "bindings/arguments.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

constexpr std::int64_t kMaxUInt32 = std::numeric_limits<std::uint32_t>::max();

NoiseCall draw_call(const char* operation, NoiseKind kind, const py::object& seed, const py::object& slot) {
  NoiseCall call;
  call.operation = operation;
  call.kind = kind;
  const std::string name = operation;
  call.seed = seed_argument(seed, name + " seed");
  call.slot = static_cast<std::uint32_t>(integer_argument(slot, name + " slot", 0, kMaxUInt32));
  return call;
}

std::int64_t size_argument(const py::object& size, const std::string& operation) {
  return integer_argument(size, operation + " size", 0, kMaxUInt32);
}

std::vector<std::uint32_t> bounds_argument(const py::object& bound) {
  constexpr std::int64_t kMaxBound = std::int64_t{1} << 31;
  const auto one = [](const py::handle& item) {
    return static_cast<std::uint32_t>(integer_argument(item, "integers bound", 1, kMaxBound));
  };
  if (!has_length(bound)) return {one(bound)};
  std::vector<std::uint32_t> bounds;
  for (const py::handle item : py::reinterpret_borrow<py::sequence>(bound)) bounds.push_back(one(item));
  return bounds;
}

}  // namespace

NoiseCall normal_call(const py::object& seed, const py::object& slot, const py::object& size) {
  NoiseCall call = draw_call("normal", NoiseKind::kNormal, seed, slot);
  call.size = size_argument(size, call.operation);
  return call;
}

NoiseCall truncated_normal_call(const py::object& seed, const py::object& slot, const py::object& size) {
  NoiseCall call = draw_call("truncated_normal", NoiseKind::kTruncatedNormal, seed, slot);
  call.size = size_argument(size, call.operation);
  return call;
}

NoiseCall integers_call(const py::object& seed, const py::object& slot, const py::object& bound,
                        const py::object& size) {
  NoiseCall call = draw_call("integers", NoiseKind::kIntegers, seed, slot);
  call.size = size_argument(size, call.operation);
  call.bounds = bounds_argument(bound);
  return call;
}

NoiseCall philox_call(const py::object& seed, const py::object& slot, const py::object& blocks) {
  NoiseCall call = draw_call("philox", NoiseKind::kWords, seed, slot);
  call.size = 4 * integer_argument(blocks, "philox blocks", 0, kMaxUInt32 / 4);
  return call;
}

}  // namespace cgnrt
