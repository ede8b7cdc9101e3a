#include "ops/noise.h"

namespace cgnrt {
namespace {

constexpr std::int64_t kMaxSize = std::int64_t{1} << 32;

}  // namespace

DType noise_dtype(NoiseKind kind) {
  switch (kind) {
    case NoiseKind::kWords:
      return DType::kUInt32;
    case NoiseKind::kIntegers:
      return DType::kInt32;
    default:
      return DType::kFloat32;
  }
}

void check_noise(NoiseCall& call) {
  const std::string operation = call.operation;
  const std::string subject = operation + " indices";
  require_device(subject, call.indices, call.target.device);
  if (call.indices.dtype != DType::kInt64) refuse(subject, "dtype", call.indices.dtype_name, "int64");
  if (call.indices.shape.size() != 1) refuse(subject, "shape", to_string(call.indices.shape), "(n,)");
  require_plain(subject, call.indices);
  if (call.size < 0 || call.size > kMaxSize) {
    refuse(operation + " size", "size", std::to_string(call.size), "0..2^32");
  }
  if (call.kind == NoiseKind::kIntegers) {
    if (call.bounds.size() != 1 && call.bounds.size() != static_cast<std::size_t>(call.size)) {
      refuse(operation + " bound", "length", std::to_string(call.bounds.size()),
             std::to_string(call.size) + ", one for each number");
    }
    for (std::size_t i = 0; i < call.bounds.size(); ++i) {
      if (call.bounds[i] < 1 || call.bounds[i] > 0x80000000u) {
        refuse(operation + " bound", "bound[" + std::to_string(i) + "]", std::to_string(call.bounds[i]),
               "1..2^31");
      }
    }
  }
  call.shape = {call.indices.shape[0], call.size};
}

void require_noise_out(const NoiseCall& call, const Tensor& out) {
  const std::string operation = call.operation;
  require_device(operation + " out", out, call.target.device);
  require_out(operation + " out", out, noise_dtype(call.kind), call.shape);
  require_apart(operation, out, "indices", call.indices);
}

}  // namespace cgnrt
