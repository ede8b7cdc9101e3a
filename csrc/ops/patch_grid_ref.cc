#include <algorithm>
#include <cstdint>
#include <vector>

#include "ops/patch_grid.h"

namespace cgnrt {
namespace {

// Pixel (y, x) of one channel of a sample's grid of tiles, before scaling.
float tile_pixel(const MosaicArgs& a, std::int64_t sample, std::int64_t c, std::int64_t y, std::int64_t x) {
  const std::int64_t tile = y / a.tile_height * a.columns + x / a.tile_width;
  const std::int64_t place = a.places[sample * a.rows * a.columns + tile];
  const std::int64_t plane = (a.items[sample].image * a.channels + c) * a.height * a.width;
  return a.images[plane + place + y % a.tile_height * a.width + x % a.tile_width];
}

float scaled_pixel(const MosaicArgs& a, std::int64_t sample, std::int64_t c, std::int64_t y, std::int64_t x) {
  float value = 0.0f;
  for (int row = 0; row < kTaps; ++row) {
    const std::int64_t from_y = tap_place(a.down, y, row);
    float across = 0.0f;
    for (int column = 0; column < kTaps; ++column) {
      const std::int64_t from_x = tap_place(a.across, x, column);
      const float product = a.across.weights[x * kTaps + column] * tile_pixel(a, sample, c, from_y, from_x);
      across = column == 0 ? product : across + product;
    }
    const float product = a.down.weights[y * kTaps + row] * across;
    value = row == 0 ? product : value + product;
  }
  return value;
}

}  // namespace

void patch_windows_ref(const WindowArgs& a) {
  struct Window {
    std::uint64_t sum;
    std::int64_t place;
  };
  for (std::int64_t i = 0; i < a.count; ++i) {
    const float* mask = a.masks + a.sources[i] * a.height * a.width;
    std::vector<Window> windows;
    for (std::int64_t y = 0; y + a.patch <= a.height; ++y) {
      for (std::int64_t x = 0; x + a.patch <= a.width; ++x) {
        std::uint64_t sum = 0;
        for (std::int64_t dy = 0; dy < a.patch; ++dy) {
          for (std::int64_t dx = 0; dx < a.patch; ++dx) {
            sum += fixed_point(mask[(y + dy) * a.width + x + dx]);
          }
        }
        windows.push_back({sum, y * a.width + x});
      }
    }
    std::stable_sort(windows.begin(), windows.end(),
                     [](const Window& p, const Window& q) { return p.sum > q.sum; });
    for (std::int64_t k = 0; k < a.top; ++k)
      a.places[i * a.top + k] = windows[static_cast<std::size_t>(k)].place;
  }
}

void mosaic_ref(const MosaicArgs& a) {
  const std::int64_t height = a.down.length;
  const std::int64_t width = a.across.length;
  const std::int64_t plane = height * width;
  for (std::int64_t i = 0; i < a.n; ++i) {
    const MosaicItem& item = a.items[i];
    for (std::int64_t c = 0; c < a.channels; ++c) {
      for (std::int64_t y = 0; y < height; ++y) {
        for (std::int64_t x = 0; x < width; ++x) {
          const std::int64_t pixel = y * width + x;
          float value = scaled_pixel(a, i, c, y, x);
          if (a.masks != nullptr) {
            value = blend(a.masks[item.mask * plane + pixel], value,
                          a.backgrounds[(item.background * a.channels + c) * plane + pixel]);
          }
          const std::int64_t at = a.layout == Layout::kNCHW ? (i * a.channels + c) * plane + pixel
                                                            : (i * plane + pixel) * a.channels + c;
          store_as(a.output, a.out, at, finish_value(a, c, value));
        }
      }
    }
  }
}

}  // namespace cgnrt
