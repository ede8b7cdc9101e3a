#include <cstdint>

#include "ops/compose.h"

namespace cgnrt {
namespace {

float load(const ComposePool& pool, std::int64_t at, const ByteValues& bytes) {
  switch (pool.dtype) {
    case DType::kFloat16:
      return half_to_float(static_cast<const std::uint16_t*>(pool.data)[at]);
    case DType::kUInt8:
      return value_of(static_cast<const std::uint8_t*>(pool.data)[at], bytes);
    default:
      return static_cast<const float*>(pool.data)[at];
  }
}

// Offset of pixel (y, x) of the rolled texture within the texture in memory.
std::int64_t rolled(const ComposeArgs& a, std::int64_t y, std::int64_t x, const Roll& roll) {
  const std::int64_t source_y = (y - roll.dy + a.height) % a.height;
  const std::int64_t source_x = (x - roll.dx + a.width) % a.width;
  return source_y * a.width + source_x;
}

}  // namespace

void compose_ref(const ComposeArgs& a) {
  const std::int64_t plane = a.height * a.width;
  for (std::int64_t i = 0; i < a.n; ++i) {
    const ComposeItem& item = a.items[i];
    for (std::int64_t c = 0; c < a.channels; ++c) {
      for (std::int64_t y = 0; y < a.height; ++y) {
        for (std::int64_t x = 0; x < a.width; ++x) {
          const std::int64_t mask_at = item.mask * plane + y * a.width + x;
          const std::int64_t foreground_at =
              (item.foreground * a.channels + c) * plane + rolled(a, y, x, item.foreground_roll);
          const std::int64_t background_at =
              (item.background * a.channels + c) * plane + rolled(a, y, x, item.background_roll);
          const float value =
              blend(load(a.masks, mask_at, mask_bytes()), load(a.foregrounds, foreground_at, picture_bytes()),
                    load(a.backgrounds, background_at, picture_bytes()));
          const std::int64_t at = a.layout == Layout::kNCHW
                                      ? (i * a.channels + c) * plane + y * a.width + x
                                      : ((i * a.height + y) * a.width + x) * a.channels + c;
          store_as(a.output, a.out, at, finish_value(a, c, value));
        }
      }
    }
  }
}

}  // namespace cgnrt
