#include "bindings/lend.h"

#include "common/tensor.h"

namespace py = pybind11;

namespace cgnrt {
namespace {

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

}  // namespace cgnrt
