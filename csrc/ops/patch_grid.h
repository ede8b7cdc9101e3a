// patch_grid: a texture made of an object's own pixels (App. C.2 of the paper): the windows where its mask is
// highest, laid out as a grid and scaled up, by itself or as the foreground of a blend (Eq. 2) that never
// stores it.
//
// Two steps, each with its specification (_ref) and its vectorised and threaded version (_cpu). The caller
// (patch_grid_validate.cc) has checked everything; the variants trust it.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/hd.h"
#include "ops/bicubic.h"
#include "ops/compose.h"

namespace cgnrt {

// A mask in fixed point: sums of windows are then exact, and equal in every order of summation and on every
// machine. What is not in [0, 1] is clamped, a NaN to 0.
CGNRT_HD std::uint32_t fixed_point(float mask) {
  float clamped = mask > 0.0f ? mask : 0.0f;
  clamped = clamped < 1.0f ? clamped : 1.0f;
  return static_cast<std::uint32_t>(static_cast<std::int32_t>(clamped * 16777216.0f));
}

constexpr int kFixedPointBits = 24;
constexpr std::int64_t kMaxPatch = 255;  // so that a column of a window fits 32 bits

// The best windows of some masks: by the sum of the mask, the highest first; of equal ones the first in
// row-major order of their corners.
struct WindowArgs {
  const float* masks;           // (M, height, width)
  const std::int32_t* sources;  // (count), within M
  std::int64_t count;
  std::int64_t height;
  std::int64_t width;
  std::int64_t patch;    // the side of a window, at most kMaxPatch
  std::int64_t top;      // windows wanted, at most as many as there are
  std::int64_t* places;  // (count, top), out: first pixel of each window, y * width + x
  int threads;           // at most this many; 0: chosen by size
};

void patch_windows_ref(const WindowArgs& args);
void patch_windows_cpu(const WindowArgs& args, const char* isa);

// What makes one sample.
struct MosaicItem {
  std::int32_t image;
  std::int32_t mask;  // of the blend; unused without one
  std::int32_t background;
};

// A grid of tiles of one image, scaled bicubically. One tile of the whole image is plain scaling.
struct MosaicArgs {
  const float* images;         // (S, channels, height, width)
  const MosaicItem* items;     // (n)
  const std::int64_t* places;  // (n, rows * columns): first pixel of each tile within a plane
  std::int64_t n;
  std::int64_t channels;
  std::int64_t height;
  std::int64_t width;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t tile_height;
  std::int64_t tile_width;
  Axis down;                 // from rows * tile_height to the result's height
  Axis across;               // from columns * tile_width to its width
  const float* masks;        // (M, 1, result height, result width), or null: no blend
  const float* backgrounds;  // (B, channels, result height, result width)
  bool clamp;  // clamp the result to [clamp_low, clamp_high], then scale, bias and cast as compose does
  float clamp_low;
  float clamp_high;
  const float* scale;  // (channels), or null
  const float* bias;
  void* out;  // (n, channels, result height, result width) or (n, result height, result width, channels)
  DType output;
  Layout layout;
  int threads;
};

void mosaic_ref(const MosaicArgs& args);
void mosaic_cpu(const MosaicArgs& args, const char* isa);

}  // namespace cgnrt
