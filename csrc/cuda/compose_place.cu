// compose where objects have places: a thread for a pixel of all channels. The four pixels that it lies
// between come from the caches for all but one of its neighbours; nothing here is known to be aligned.
#include <cstdint>

#include "cuda/casts.cuh"
#include "cuda/compose.cuh"
#include "cuda/launch.cuh"
#include "ops/place.h"

namespace cgnrt {
namespace {

// A plane of a pool, after its roll.
struct RolledPlane {
  const ComposePool& pool;
  std::int64_t first;  // of its pixels in the pool
  ComposeShift shift;
  ByteValues bytes;
};

__device__ __forceinline__ float pixel_at(const ComposeDeviceArgs& a, const RolledPlane& p, std::int64_t y,
                                          std::int64_t x) {
  y += p.shift.rows;
  if (y >= a.height) y -= a.height;
  x += p.shift.columns;
  if (x >= a.width) x -= a.width;
  const std::int64_t at = p.first + y * a.width + x;
  if (p.pool.dtype == DType::kUInt8) {
    return value_of(__ldg(static_cast<const std::uint8_t*>(p.pool.data) + at), p.bytes);
  }
  if (p.pool.dtype == DType::kFloat16)
    return widen(__ldg(static_cast<const std::uint16_t*>(p.pool.data) + at));
  return __ldg(static_cast<const float*>(p.pool.data) + at);
}

__device__ __forceinline__ float between_rows(const ComposeDeviceArgs& a, const RolledPlane& p,
                                              const Tap& row, std::int64_t x) {
  const float upper = pixel_at(a, p, row.first, x);
  return row.weight == 0.0f ? upper : between(upper, pixel_at(a, p, row.first + 1, x), row.weight);
}

__device__ __forceinline__ float moved(const ComposeDeviceArgs& a, const RolledPlane& p, const Tap& row,
                                       const Tap& column) {
  const float left = between_rows(a, p, row, column.first);
  if (column.weight == 0.0f) return left;
  return between(left, between_rows(a, p, row, column.first + 1), column.weight);
}

template <DType out, bool rolls>
__global__ void __launch_bounds__(kLoopThreads) place_kernel(const __grid_constant__ ComposeDeviceArgs a) {
  const std::int64_t plane = a.height * a.width, pixels = a.n * plane;
  for (std::int64_t pixel = loop_first(); pixel < pixels; pixel += loop_step()) {
    const std::int64_t sample = quotient(pixel, plane), within = pixel - sample * plane;
    const std::int64_t y = quotient(within, a.width), x = within - y * a.width;
    ComposeDeviceItem item = item_of<1, rolls>(a, sample);
    const float* place = a.place + sample * kPlaceNumbers;
    const float dy = __ldg(place), dx = __ldg(place + 1), scale = __ldg(place + 2), flip = __ldg(place + 3);
    item.is_there = item.is_there && is_place(dy, dx, scale, flip);
    const Tap row = tap_of(y, a.height, dy, scale, false);
    const Tap column = tap_of(x, a.width, dx, scale, flip != 0.0f);
    const bool covers = item.is_there && row.inside && column.inside;
    float mask = 0.0f;
    if (covers) {
      mask = moved(a, {a.masks, item.mask * plane, {}, mask_bytes()}, row, column);
    }
    for (std::int64_t c = 0; c < a.channels; ++c) {
      float value = float_of(0x7fc00000u);
      if (item.is_there) {
        const RolledPlane f{a.foregrounds, (item.foreground * a.channels + c) * plane, item.foreground_shift,
                            picture_bytes()};
        const RolledPlane b{a.backgrounds, (item.background * a.channels + c) * plane, item.background_shift,
                            picture_bytes()};
        value = blend(mask, covers ? moved(a, f, row, column) : 0.0f, pixel_at(a, b, y, x));
      }
      if (a.clamp) value = clamp_to(value, a.clamp_low, a.clamp_high);
      if (a.has_scale) value = value * a.scale[c];
      if (a.has_bias) value = value + a.bias[c];
      const std::int64_t at =
          a.layout == Layout::kNCHW ? (sample * a.channels + c) * plane + within : pixel * a.channels + c;
      store_pixel<out>(a.out, at, value);
    }
  }
}

}  // namespace

void compose_placed(const ComposeDeviceArgs& a, cudaStream_t stream) {
  with_output(a.output, [&](auto output) {
    constexpr DType out = decltype(output)::value;
    const dim3 blocks = loop_blocks(a.n * a.height * a.width);
    if (a.rolls != nullptr) {
      CGNRT_LAUNCH((place_kernel<out, true>), blocks, dim3(kLoopThreads), 0, stream, a);
    } else {
      CGNRT_LAUNCH((place_kernel<out, false>), blocks, dim3(kLoopThreads), 0, stream, a);
    }
  });
}

}  // namespace cgnrt
