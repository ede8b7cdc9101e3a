// A call of compose as its kernel reads it, and where one sample comes from.
#pragma once

#include <cstdint>

#include "cuda/finish.cuh"
#include "cuda/launch.cuh"
#include "ops/compose.h"

namespace cgnrt {

// Index and rolls stay on the device: to check their values the host would have to wait.
struct ComposeDeviceArgs : DeviceFinish {
  ComposePool masks;        // (masks_count, 1, height, width)
  ComposePool foregrounds;  // (foregrounds_count, channels, height, width)
  ComposePool backgrounds;  // (backgrounds_count, channels, height, width)
  // (n, 3) int32, or int64 if index_is_wide; null: in order. Nothing is read for a row with an entry that
  // does not exist.
  const void* index;
  const void* rolls;   // (n, 2, 2) int32, or int64 if rolls_are_wide, any integers; null: none
  const float* place;  // (n, 4), the numbers of a Place; null: objects stay where they are
  bool index_is_wide;
  bool rolls_are_wide;
  std::int64_t masks_count;
  std::int64_t foregrounds_count;
  std::int64_t backgrounds_count;
  void* out;  // (n, channels, height, width) or (n, height, width, channels), `output`
  std::int64_t n;
  std::int64_t channels;  // at most kMaxDeviceChannels
  std::int64_t height;
  std::int64_t width;
};

// Where objects have places; compose_place.cu.
void compose_placed(const ComposeDeviceArgs& a, cudaStream_t stream);

// Where the pixels of a rolled texture come from: so many rows and units further on, then so many pixels.
struct ComposeShift {
  std::uint32_t rows;
  std::uint32_t columns;
  int skip;
};

struct ComposeDeviceItem {
  bool is_there;  // false: one of its entries does not exist
  std::int64_t mask;
  std::int64_t foreground;
  std::int64_t background;
  ComposeShift foreground_shift;
  ComposeShift background_shift;
};

// offset mod period, within 0..period-1.
__device__ __forceinline__ std::int64_t turn_of(const void* rolls, bool is_wide, std::int64_t at,
                                                std::int64_t period) {
  std::int64_t rest = 0;
  if (is_wide) {
    rest = static_cast<const std::int64_t*>(rolls)[at] % period;
  } else {
    rest = static_cast<const std::int32_t*>(rolls)[at] % static_cast<std::int32_t>(period);
  }
  return rest < 0 ? rest + period : rest;
}

template <int pixels>
__device__ __forceinline__ ComposeShift shift_of(const ComposeDeviceArgs& a, std::int64_t at) {
  const std::int64_t dy = turn_of(a.rolls, a.rolls_are_wide, at, a.height);
  const std::int64_t dx = turn_of(a.rolls, a.rolls_are_wide, at + 1, a.width);
  const auto rows = static_cast<std::uint32_t>(dy == 0 ? 0 : a.height - dy);
  const auto ahead = static_cast<std::uint32_t>(dx == 0 ? 0 : a.width - dx);
  return {rows, ahead / pixels, static_cast<int>(ahead % pixels)};
}

template <int pixels, bool rolls>
__device__ __forceinline__ ComposeDeviceItem item_of(const ComposeDeviceArgs& a, std::int64_t sample) {
  ComposeDeviceItem item{true, sample, sample, sample, {}, {}};
  if (a.index != nullptr) {
    item.mask = integer_of(a.index, a.index_is_wide, sample * 3);
    item.foreground = integer_of(a.index, a.index_is_wide, sample * 3 + 1);
    item.background = integer_of(a.index, a.index_is_wide, sample * 3 + 2);
    item.is_there = item.mask >= 0 && item.mask < a.masks_count && item.foreground >= 0 &&
                    item.foreground < a.foregrounds_count && item.background >= 0 &&
                    item.background < a.backgrounds_count;
    if (!item.is_there) item.mask = item.foreground = item.background = 0;
  }
  if constexpr (rolls) {
    item.foreground_shift = shift_of<pixels>(a, sample * 4);
    item.background_shift = shift_of<pixels>(a, sample * 4 + 2);
  }
  return item;
}

}  // namespace cgnrt
