// patch_grid: a texture made of an object's own pixels (App. C.2 of the paper): the windows where its mask is
// highest, laid out as a grid and scaled up, returned as such or blended as the foreground of Eq. 2 without
// being stored. resize: the same scaling of whole pictures.
//
// Python calls patch_grid() and resize(). patch_grid_validate.cc checks a call on every device. On the CPU
// patch_grid_cpu.cc checks index, picks and masks value by value, and runs the two steps, each either by its
// specification (_ref) or by the loops of patch_grid_kernel.cc on several threads. On a GPU the two functions
// are in cuda/patch_grid.cu.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/cpu.h"
#include "common/tensor.h"
#include "ops/bicubic.h"
#include "ops/pixels.h"

namespace cgnrt {

// A mask in fixed point: sums of windows are then exact, and equal in every order of summation and on every
// machine. Values outside [0, 1] are clamped, a NaN to 0.
CGNRT_HD std::uint32_t fixed_point(float mask) {
  float clamped = mask > 0.0f ? mask : 0.0f;
  clamped = clamped < 1.0f ? clamped : 1.0f;
  return static_cast<std::uint32_t>(static_cast<std::int32_t>(clamped * 16777216.0f));
}

constexpr int kFixedPointBits = 24;
constexpr std::int64_t kMaxPatch = 255;  // so that a column of a window fits 32 bits

// Calls as Python makes them. Not checked yet.
struct ResizeCall {
  Target target;
  Tensor images;  // (n, c, h, w) float32
  PixelForm form;
  std::int64_t height = 0;  // of the result
  std::int64_t width = 0;
  std::vector<std::int64_t> shape;  // of the result; check_resize or check_patch_grid sets it
};

struct PatchGridCall : ResizeCall {  // images: (S, c, h, w)
  Tensor masks;                      // (S, 1, h, w) float32 in [0, 1]
  Tensor picks;                      // (n, grid * grid) int32 or int64: ranks of windows, below top
  std::optional<Tensor> index;       // (n, 3) with a blend, (n, 1) without; absent: in order
  std::optional<Tensor> over;        // (M, 1, height, width) float32: the blend's masks
  std::optional<Tensor> grounds;     // (B, c, height, width) float32; present if `over` is
  std::int64_t patch = 0;
  std::int64_t grid = 0;
  std::int64_t top = 0;
};

// Check the shapes and dtypes of the inputs and set the call's shape. Throw std::invalid_argument.
void check_patch_grid(PatchGridCall& call);
void check_resize(ResizeCall& call);

// Check where the result is written to. Throw std::invalid_argument.
void require_patch_grid_out(const PatchGridCall& call, const Tensor& out);
void require_resize_out(const ResizeCall& call, const Tensor& out);

// Check the rest of a call that check_patch_grid or check_resize accepted, and run it. Throw
// std::invalid_argument before anything is written. On a GPU they enqueue the work and do not wait; an index
// or a pick that does not exist gives NaN there, and 0 as uint8, and masks are clamped.
void patch_grid(const PatchGridCall& call, const Tensor& out);
void resize(const ResizeCall& call, const Tensor& out);

// The first step, checked: the best windows of some masks, by the sum of the mask, the highest first; of
// equal ones the first in row-major order of their corners.
struct WindowArgs {
  const float* masks;           // (M, height, width)
  const std::int32_t* sources;  // (count), within M
  std::int64_t count;
  std::int64_t height;
  std::int64_t width;
  std::int64_t patch;    // the side of a window, at most kMaxPatch
  std::int64_t top;      // windows wanted, at most as many as there are
  std::int64_t* places;  // (count, top), out: first pixel of each window, y * width + x
};

void patch_windows_ref(const WindowArgs& args);

// The entries that make one sample.
struct MosaicItem {
  std::int32_t image;
  std::int32_t mask;  // of the blend; unused without one
  std::int32_t background;
};

// The second step, checked: a grid of tiles of one image, scaled bicubically. One tile of the whole image is
// plain scaling.
struct MosaicArgs : PixelFinish {
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
  void* out;  // (n, channels, result height, result width) or (n, result height, result width, channels)
};

void mosaic_ref(const MosaicArgs& args);

// Working memory of one task.
struct MosaicScratch {
  float* row;            // (columns * tile_width + 2 * kPadding): a row of the grid before scaling
  float* scaled;         // (channels, kTaps, result width): rows scaled across, row r at r % kTaps
  std::int64_t* held;    // (channels, kTaps): which rows these are; -1: none
  float* line;           // (result width): a row of the result
  unsigned char* bytes;  // (result width * 4): the same, cast
};

struct PatchGridKernel {
  // Sums of all windows of one mask, in order: (height - patch + 1, width - patch + 1). `columns` has width
  // items, `prefix` width + 1.
  void (*window_sums)(const float* mask, std::int64_t height, std::int64_t width, std::int64_t patch,
                      std::uint32_t* columns, std::uint64_t* prefix, std::uint64_t* sums);
  // Rows first..last-1 of one sample's result.
  void (*mosaic_rows)(const MosaicArgs& args, std::int64_t sample, std::int64_t first, std::int64_t last,
                      const MosaicScratch& scratch);
};

CGNRT_DECLARE_VARIANTS(PatchGridKernel, kPatchGrid)

}  // namespace cgnrt
