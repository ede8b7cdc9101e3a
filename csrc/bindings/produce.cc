// What this module hands out: new arrays, and bfloat16 by DLPack.
#include <pybind11/numpy.h>

#include <cstdlib>
#include <limits>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "bindings/exchange.h"
#include "bindings/lend.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::size_t checked_bytes(DType dtype, const std::vector<std::int64_t>& shape) {
  std::size_t bytes = size_of(dtype);
  for (const std::int64_t extent : shape) {
    if (extent == 0) return 0;
  }
  for (const std::int64_t extent : shape) {
    const std::size_t factor = static_cast<std::size_t>(extent);
    if (bytes > static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) / factor) {
      throw std::bad_alloc();
    }
    bytes *= factor;
  }
  return bytes;
}

// Large blocks on huge pages where the system grants them: first touch is otherwise slower than the ops
// themselves.
void* allocate(std::size_t bytes) {
  const bool large = bytes >= 2 * kHugePage;
  void* memory = nullptr;
  if (posix_memalign(&memory, large ? kHugePage : kAlignment, bytes > 0 ? bytes : 1) != 0)
    throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (large) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  return memory;
}

py::dtype numpy_dtype(DType dtype) {
  return py::dtype::from_args(py::str(name_of(dtype == DType::kBFloat16 ? DType::kUInt16 : dtype)));
}

// What a bfloat16 capsule keeps alive.
struct LentBits : Lent {
  ~LentBits() override {
    py::gil_scoped_acquire gil;
    bits.reset();
    object.release().dec_ref();
  }
  std::unique_ptr<Borrowed> bits;
  py::object object;
};

}  // namespace

py::object new_array(DType dtype, const std::vector<std::int64_t>& shape) {
  void* memory = allocate(checked_bytes(dtype, shape));
  const py::capsule owner(memory, [](void* block) { std::free(block); });
  return py::array(numpy_dtype(dtype), shape, std::vector<py::ssize_t>{}, memory, owner);
}

py::capsule bfloat16_dlpack(const py::object& bits, const py::object& max_version) {
  auto lent = std::make_unique<LentBits>();
  lent->bits = std::make_unique<Borrowed>(bits, "bfloat16_dlpack bits");
  lent->object = bits;
  const Tensor& tensor = lent->bits->tensor();
  if (tensor.dtype != DType::kUInt16) refuse("bfloat16_dlpack bits", "dtype", tensor.dtype_name, "uint16");
  require_plain("bfloat16_dlpack bits", tensor);
  lent->shape = tensor.shape;
  dlpack::DLTensor described{};
  described.data = tensor.data;
  described.device = {dlpack::kCpu, 0};
  described.dtype = {dlpack::kBfloat, 16, 1};
  const bool readonly = tensor.readonly;
  return lend(std::move(lent), described, readonly, max_version, "bfloat16_dlpack bits");
}

}  // namespace cgnrt
