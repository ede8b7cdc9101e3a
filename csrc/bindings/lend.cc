#include "bindings/lend.h"

#include <pybind11/numpy.h>

#include <cstdlib>
#include <limits>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "bindings/borrow.h"

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

// Large blocks on huge pages if the system gives them: the first write to other pages takes longer than the
// ops do.
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

template <typename Managed>
void delete_managed(Managed* managed) {
  delete static_cast<Lent*>(managed->manager_ctx);
  delete managed;
}

// Runs when the capsule dies; a consumer that took the tensor has renamed it and calls the deleter itself.
template <typename Managed>
void destroy_capsule(PyObject* capsule, const char* name) {
  if (!PyCapsule_IsValid(capsule, name)) return;
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
  managed->deleter(managed);
}

bool takes_versioned(const py::object& max_version) {
  return !max_version.is_none() && max_version.cast<py::tuple>()[0].cast<int>() >= 1;
}

}  // namespace

py::capsule lend(std::unique_ptr<Lent> lent, dlpack::DLTensor tensor, bool readonly,
                 const py::object& max_version, const std::string& subject) {
  lent->strides.resize(lent->shape.size());
  std::int64_t stride = 1;
  for (std::size_t i = lent->shape.size(); i-- > 0;) {
    lent->strides[i] = stride;
    stride *= lent->shape[i];
  }
  tensor.ndim = static_cast<std::int32_t>(lent->shape.size());
  tensor.shape = lent->shape.data();
  tensor.strides = lent->strides.data();
  if (takes_versioned(max_version)) {
    auto* managed = new dlpack::DLManagedTensorVersioned{};
    managed->version = {1, 0};
    managed->deleter = delete_managed<dlpack::DLManagedTensorVersioned>;
    managed->flags = readonly ? dlpack::kFlagReadOnly : 0;
    managed->dl_tensor = tensor;
    managed->manager_ctx = lent.release();
    return py::capsule(managed, dlpack::kVersionedName, [](PyObject* capsule) {
      destroy_capsule<dlpack::DLManagedTensorVersioned>(capsule, dlpack::kVersionedName);
    });
  }
  if (readonly) refuse(subject, "memory", "read-only", "writable, since max_version is below (1, 0)");
  auto* managed = new dlpack::DLManagedTensor{};
  managed->deleter = delete_managed<dlpack::DLManagedTensor>;
  managed->dl_tensor = tensor;
  managed->manager_ctx = lent.release();
  return py::capsule(managed, dlpack::kName, [](PyObject* capsule) {
    destroy_capsule<dlpack::DLManagedTensor>(capsule, dlpack::kName);
  });
}

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
