// What the files of patch_grid share: the kernels' parameters and how they read an index.
#pragma once

#include <cstdint>

#include "cuda/finish.cuh"
#include "cuda/launch.cuh"
#include "ops/patch_grid.h"

namespace cgnrt {

// Pixels of a picture, at most: 32 bits then count them and those that a block's threads reach beyond them.
constexpr std::int64_t kMaxDevicePixels = std::int64_t{1} << 30;

// Indices and picks stay on the device: to check their values the host would have to wait.
struct PatchGridDeviceArgs : DeviceFinish {
  const float* masks;   // (sources, 1, height, width) where the objects are; null: resize, whole images
  const float* images;  // (sources, channels, height, width)
  const void* picks;    // (n, grid * grid) int32, or int64 if picks_are_wide; unused by resize
  const void* index;    // (n, 3) rows of (mask, source, background) with a blend, else (n, 1); null: in order
  bool picks_are_wide;
  bool index_is_wide;
  const float* blend_masks;  // (blend_masks_count, 1, result_height, result_width), or null: no blend
  const float* backgrounds;  // (backgrounds_count, channels, result_height, result_width)
  std::int64_t sources;
  std::int64_t blend_masks_count;
  std::int64_t backgrounds_count;
  std::int64_t n;
  std::int64_t channels;  // at most kMaxDeviceChannels
  std::int64_t height;    // times width: at most kMaxDevicePixels
  std::int64_t width;
  std::int64_t patch;
  std::int64_t grid;
  std::int64_t top;
  std::int64_t result_height;
  std::int64_t result_width;
  void* out;
};

// Lists of ranked windows: one for each source, or for each sample where these are fewer.
struct WindowLists {
  std::int64_t count;
  bool by_sample;
};

inline WindowLists window_lists(const PatchGridDeviceArgs& args) {
  const bool by_sample = args.index != nullptr && args.n < args.sources;
  return {by_sample ? args.n : args.sources, by_sample};
}

enum class Pool { kMasks, kSources, kBackgrounds };

// Which entry of a pool makes a sample; -1: one that does not exist.
__device__ __forceinline__ int entry_of(const PatchGridDeviceArgs& args, std::int64_t sample, Pool pool) {
  if (args.index == nullptr) return static_cast<int>(sample);
  const bool blends = args.blend_masks != nullptr;
  const std::int64_t at = blends ? sample * 3 + static_cast<int>(pool) : sample;
  const std::int64_t count = pool == Pool::kMasks     ? args.blend_masks_count
                             : pool == Pool::kSources ? args.sources
                                                      : args.backgrounds_count;
  const std::int64_t entry = integer_of(args.index, args.index_is_wide, at);
  return entry >= 0 && entry < count ? static_cast<int>(entry) : -1;
}

// Bytes that rank_windows needs beside the places, a multiple of 16.
std::int64_t rank_scratch_bytes(const PatchGridDeviceArgs& args);

// The first pixels of each list's best windows, (lists, top), as patch_windows_ref computes them. Lists of
// sources that do not exist stay as they are.
void rank_windows(const PatchGridDeviceArgs& args, std::int32_t* places, void* scratch, cudaStream_t stream);

// The rest: lays out, scales, blends and writes. `places` is null for resize.
void mosaic(const PatchGridDeviceArgs& args, const std::int32_t* places, cudaStream_t stream);

}  // namespace cgnrt
