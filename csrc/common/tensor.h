// A tensor as the ops see it, memory that someone else owns and its description; where a call runs; and the
// checks that the validators of several ops share. `subject` begins a message ("compose masks").
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/scalar.h"

namespace cgnrt {

enum class DeviceKind { kCpu, kCuda, kOther };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  std::string name = "cpu";  // "cpu", "cuda:0"
};

// Where and how a call runs. A module sets what its device reads.
struct Target {
  Device device;
  // The CPU.
  int threads = 0;                      // at most this many; 0: chosen by size
  std::string implementation = "auto";  // "auto", "reference" or a name in cpu_isas()
  // A GPU.
  void* stream = nullptr;                      // a cudaStream_t
  std::function<void*(std::int64_t)> scratch;  // that many bytes, for this call only
};

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kOther;
  std::string dtype_name;  // as the owner spells it, also of a kOther
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

// Refuses a tensor on another device. Comes first: of a tensor elsewhere only the device is known.
void require_device(const std::string& subject, const Tensor& tensor, const Device& device);

// Refuses what is not (any, rest...) int32 or int64.
void require_rows(const std::string& subject, const Tensor& tensor, const std::vector<std::int64_t>& rest,
                  const char* rule);

// Number `at` of an int32 or int64 tensor.
std::int64_t integer_at(const Tensor& tensor, std::int64_t at);

// Reads index[row, column], the number of one of `entries` entries of the tensor `pool`; refuses one that
// does not exist.
std::int32_t entry_at(const char* operation, const Tensor& index, std::int64_t row, std::int64_t column,
                      std::int64_t entries, const char* pool);

// Refuses an `out` that shares memory with an input.
void require_apart(const std::string& operation, const Tensor& out, const char* name, const Tensor& input);

}  // namespace cgnrt
