// One value into a tensor of any output dtype: for the scalar references.
#pragma once

#include <cstdint>

#include "common/convert.h"
#include "common/dtype.h"

namespace cgnrt {

CGNRT_HD void store(void* data, std::int64_t at, DType dtype, float value) {
  switch (dtype) {
    case DType::kFloat16:
      static_cast<std::uint16_t*>(data)[at] = float_to_half(value);
      break;
    case DType::kBFloat16:
      static_cast<std::uint16_t*>(data)[at] = float_to_bfloat16(value);
      break;
    case DType::kUInt8:
      static_cast<std::uint8_t*>(data)[at] = float_to_uint8(value);
      break;
    default:
      static_cast<float*>(data)[at] = value;
  }
}

}  // namespace cgnrt
