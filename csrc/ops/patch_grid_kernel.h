// The vectorised loops of patch_grid, compiled once for every instruction set (CMakeLists.txt).
#pragma once

#include <cstdint>

#include "ops/patch_grid.h"

namespace cgnrt {

// Working memory of one task.
struct MosaicScratch {
  float* row;            // (columns * tile_width + 2 * kPadding): a row of the grid before scaling
  float* scaled;         // (channels, kTaps, result width): rows scaled across, row r at r % kTaps
  std::int64_t* held;    // (channels, kTaps): which rows these are; -1: none
  float* line;           // (result width): a row of the result
  unsigned char* bytes;  // (result width * 4): the same, cast
};

struct PatchGridKernels {
  // Sums of all windows of one mask, in order: (height - patch + 1, width - patch + 1). `columns` has width
  // items, `prefix` width + 1.
  void (*window_sums)(const float* mask, std::int64_t height, std::int64_t width, std::int64_t patch,
                      std::uint32_t* columns, std::uint64_t* prefix, std::uint64_t* sums);
  // Rows first..last-1 of one sample's result.
  void (*mosaic_rows)(const MosaicArgs& args, std::int64_t sample, std::int64_t first, std::int64_t last,
                      const MosaicScratch& scratch);
};

namespace baseline {
extern const PatchGridKernels patch_grid_kernels;
}
namespace x86_v3 {
extern const PatchGridKernels patch_grid_kernels;
}
namespace x86_v4 {
extern const PatchGridKernels patch_grid_kernels;
}

}  // namespace cgnrt
