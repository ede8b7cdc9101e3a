#include "common/tensor.h"

#include <algorithm>
#include <stdexcept>

namespace cgnrt {

std::int64_t Tensor::count() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : shape) {
    if (extent == 0) return 0;  // first: the product of the others could overflow
  }
  for (const std::int64_t extent : shape) product *= extent;
  return product;
}

bool Tensor::overlaps(const Tensor& other) const {
  const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t other_begin = reinterpret_cast<std::uintptr_t>(other.data);
  return bytes() > 0 && other.bytes() > 0 &&
         begin < other_begin + static_cast<std::uintptr_t>(other.bytes()) &&
         other_begin < begin + static_cast<std::uintptr_t>(bytes());
}

std::string to_string(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i != 0 ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

void refuse(const std::string& subject, const std::string& field, const std::string& got,
            const std::string& rule, const std::string& next_step) {
  std::string message = subject + ": " + field + " is " + got + ", expected " + rule + ".";
  if (!next_step.empty()) message += " " + next_step;
  throw std::invalid_argument(message);
}

void require_plain(const std::string& subject, const Tensor& tensor) {
  if (!tensor.contiguous) {
    refuse(subject, "memory layout", "strided", "C-contiguous",
           "Pass numpy.ascontiguousarray(x) or x.contiguous().");
  }
  const std::size_t size = size_of(tensor.dtype);
  if (size != 0 && reinterpret_cast<std::uintptr_t>(tensor.data) % size != 0) {
    refuse(subject, "address", "not a multiple of its item size", "aligned memory", "Pass a copy.");
  }
}

void require_device(const std::string& subject, const Tensor& tensor, const Device& device) {
  if (tensor.device.name != device.name) refuse(subject, "device", tensor.device.name, device.name);
}

void require_rows(const std::string& subject, const Tensor& tensor, const std::vector<std::int64_t>& rest,
                  const char* rule) {
  if (tensor.dtype != DType::kInt32 && tensor.dtype != DType::kInt64) {
    refuse(subject, "dtype", tensor.dtype_name, "int32 or int64");
  }
  if (tensor.shape.size() != rest.size() + 1 ||
      !std::equal(rest.begin(), rest.end(), tensor.shape.begin() + 1)) {
    refuse(subject, "shape", to_string(tensor.shape), rule);
  }
  require_plain(subject, tensor);
}

std::int64_t integer_at(const Tensor& tensor, std::int64_t at) {
  if (tensor.dtype == DType::kInt64) return static_cast<const std::int64_t*>(tensor.data)[at];
  return static_cast<const std::int32_t*>(tensor.data)[at];
}

std::int32_t entry_at(const char* operation, const Tensor& index, std::int64_t row, std::int64_t column,
                      std::int64_t entries, const char* pool) {
  const std::int64_t value = integer_at(index, row * index.shape[1] + column);
  if (value < 0 || value >= entries) {
    refuse(std::string(operation) + " index",
           "index[" + std::to_string(row) + ", " + std::to_string(column) + "]", std::to_string(value),
           entries > 0 ? "0.." + std::to_string(entries - 1)
                       : std::string("no row, since ") + pool + " is empty");
  }
  return static_cast<std::int32_t>(value);
}

void require_out(const std::string& subject, const Tensor& out, DType dtype,
                 const std::vector<std::int64_t>& shape) {
  // NumPy has no bfloat16: its bits are passed as uint16.
  const bool as_bits = dtype == DType::kBFloat16 && out.dtype == DType::kUInt16;
  if (out.dtype != dtype && !as_bits) refuse(subject, "dtype", out.dtype_name, name_of(dtype));
  if (out.shape != shape) refuse(subject, "shape", to_string(out.shape), to_string(shape));
  require_plain(subject, out);
  if (out.readonly) refuse(subject, "memory", "read-only", "writable");
}

void require_apart(const std::string& operation, const Tensor& out, const char* name, const Tensor& input) {
  if (out.overlaps(input)) {
    refuse(operation + " out", "memory", std::string("shared with ") + name, "memory of its own",
           "Pass another tensor.");
  }
}

}  // namespace cgnrt
