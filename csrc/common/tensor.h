// A tensor as the ops see it: somebody else's memory and its description, with no Python in it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/dtype.h"

namespace cgnrt {

enum class DeviceKind { kCpu, kCuda, kOther };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  std::string name = "cpu";  // "cpu", "cuda:0"
};

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kOther;
  std::string dtype_name;  // as the owner spells it: names what kOther was
  Device device;
  std::vector<std::int64_t> shape;
  bool contiguous = true;  // C order, no gaps
  bool readonly = false;

  std::int64_t count() const;
  std::int64_t bytes() const { return count() * static_cast<std::int64_t>(size_of(dtype)); }
  bool overlaps(const Tensor& other) const;
};

// "(2, 3)"
std::string to_string(const std::vector<std::int64_t>& shape);

// Throws std::invalid_argument("<subject>: <field> is <got>, expected <rule>. <next step>").
[[noreturn]] void refuse(const std::string& subject, const std::string& field, const std::string& got,
                         const std::string& rule, const std::string& next_step = "");

// Refuses a tensor that is not C-contiguous or not aligned to its items.
void require_plain(const std::string& subject, const Tensor& tensor);

// Also refuses one that is read-only, of another dtype or shape: what an `out` argument must be.
void require_out(const std::string& subject, const Tensor& out, DType dtype,
                 const std::vector<std::int64_t>& shape);

// Refuses an `out` that shares memory with an input.
void require_apart(const std::string& operation, const Tensor& out, const char* name, const Tensor& input);

}  // namespace cgnrt
