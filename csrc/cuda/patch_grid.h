// patch_grid and bicubic scaling on a GPU. Indices and picks stay on the device: what is wrong with one
// cannot be told without waiting for it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/compose.h"
#include "ops/patch_grid.h"

namespace cgnrt {

// Of a picture, so that 32 bits number its pixels and what lies a block's threads beyond.
constexpr std::int64_t kMaxDevicePixels = std::int64_t{1} << 30;

struct PatchGridDeviceArgs {
  const float*
      masks;  // (sources, 1, height, width) where the objects are; null: resize, tiles are whole images
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
  std::int64_t height;    // times width: below 2^31
  std::int64_t width;
  std::int64_t patch;
  std::int64_t grid;
  std::int64_t top;
  std::int64_t result_height;
  std::int64_t result_width;
  bool has_scale;
  bool has_bias;
  float scale[kMaxDeviceChannels];
  float bias[kMaxDeviceChannels];
  bool clamp;
  float clamp_low;
  float clamp_high;
  void* out;
  DType output;
  Layout layout;
};

// What patch_grid_cuda needs beside: the windows' sums and the ranked places; nothing for resize. Aligned to
// 16 bytes.
std::int64_t patch_grid_scratch_bytes(const PatchGridDeviceArgs& args);

// Enqueues on the current device and does not synchronise. The windows, and the pixels, are bit by bit those
// of patch_windows_ref and mosaic_ref. A pick or an index that is not there gives NaN, and 0 as uint8; masks
// outside [0, 1] are clamped, NaN to 0. Throws CudaError if a launch fails.
void patch_grid_cuda(const PatchGridDeviceArgs& args, void* scratch, cudaStream_t stream);

}  // namespace cgnrt
