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

// A picture of a pool after its roll, channel by channel.
struct Picture {
  const ComposeArgs& args;
  const ComposePool& pool;
  std::int64_t first;  // of its pixels in the pool
  Roll roll;
  ByteValues bytes;

  float at(std::int64_t y, std::int64_t x) const {
    return load(pool, first + rolled(args, y, x, roll), bytes);
  }

  // Between rows at one column, then between columns.
  float between_rows(const Tap& row, std::int64_t x) const {
    const float first = at(row.first, x);
    return row.weight == 0.0f ? first : between(first, at(row.first + 1, x), row.weight);
  }
  float moved(const Tap& row, const Tap& column) const {
    const float first = between_rows(row, column.first);
    if (column.weight == 0.0f) return first;
    return between(first, between_rows(row, column.first + 1), column.weight);
  }
};

}  // namespace

void compose_ref(const ComposeArgs& a) {
  const std::int64_t plane = a.height * a.width;
  for (std::int64_t i = 0; i < a.n; ++i) {
    const ComposeItem& item = a.items[i];
    for (std::int64_t c = 0; c < a.channels; ++c) {
      const Picture masks{a, a.masks, item.mask * plane, {0, 0}, mask_bytes()};
      const Picture foregrounds{a, a.foregrounds, (item.foreground * a.channels + c) * plane,
                                item.foreground_roll, picture_bytes()};
      const Picture backgrounds{a, a.backgrounds, (item.background * a.channels + c) * plane,
                                item.background_roll, picture_bytes()};
      for (std::int64_t y = 0; y < a.height; ++y) {
        for (std::int64_t x = 0; x < a.width; ++x) {
          float mask = 0.0f, foreground = 0.0f;  // of a place that has no object
          if (a.places == nullptr) {
            mask = masks.at(y, x);
            foreground = foregrounds.at(y, x);
          } else {
            const Place& place = a.places[i];
            const Tap row = tap_of(y, a.height, place.dy, place.scale, false);
            const Tap column = tap_of(x, a.width, place.dx, place.scale, place.flip);
            if (row.inside && column.inside) {
              mask = masks.moved(row, column);
              foreground = foregrounds.moved(row, column);
            }
          }
          const float value = blend(mask, foreground, backgrounds.at(y, x));
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
