// What the files of patch_grid share: the kernels' parameters and how they read an index.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/integers.cuh"
#include "cuda/patch_grid.h"

namespace cgnrt {

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

// Which entry of a pool makes a sample; -1: one that is not there.
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

// The first pixels of each list's best windows, (lists, top), as patch_windows_ref has them. Lists of sources
// that are not there stay as they are.
void rank_windows(const PatchGridDeviceArgs& args, std::int32_t* places, void* scratch, cudaStream_t stream);

// The rest: lays out, scales, blends and writes. `places` is null for resize.
void mosaic(const PatchGridDeviceArgs& args, const std::int32_t* places, cudaStream_t stream);

}  // namespace cgnrt
