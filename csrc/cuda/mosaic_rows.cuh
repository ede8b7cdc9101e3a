// The first half of a mosaic's block: which pixels of which tiles it needs, and these scaled across.
#pragma once

#include "cuda/patch_grid.cuh"

namespace cgnrt {

constexpr int kMosaicThreads = 256;
constexpr int kMosaicColumns = 64;  // of the result, for each block
constexpr int kMosaicMaxRows = 32;  // likewise
static_assert(kMosaicColumns + kMosaicMaxRows <= kMosaicThreads, "a thread for each tap");

// A kernel's parameters.
struct MosaicWork {
  PatchGridDeviceArgs args;
  const std::int32_t* places;  // of the ranked windows; null: the tile is the whole image
  bool by_sample;              // a list of places for each sample, else for each source
  int tile_height;
  int tile_width;
  int tile_columns;
  int source_height;  // of the grid
  int source_width;
  double down;  // scales
  double across;
  int rows;                   // of the result, for each block
  int slots;                  // rows scaled across that a block holds
  int pieces;                 // blocks for the width of the result
  std::int64_t plane;         // pixels of an image
  std::int64_t result_plane;  // of a result
};

// What a block knows of its rectangle, the same for all samples.
struct MosaicTaps {
  int4 columns[kMosaicColumns];  // of the tiles that the taps lie in
  int4 offsets[kMosaicColumns];  // within their rows
  float4 across[kMosaicColumns];
  int4 slots[kMosaicMaxRows];  // of the rows of the taps, times kMosaicColumns
  float4 down[kMosaicMaxRows];
  int firsts[kMosaicMaxRows];
  // Of each slot: the first of the tiles it crosses, and the pixels above it in a tile.
  int2 rows[kMosaicMaxRows * kTaps];
};

__device__ __forceinline__ int place_of(int first, int tap, int length) {
  const std::int64_t place = static_cast<std::int64_t>(first) + tap;
  return static_cast<int>(place < 0 ? 0 : place < length ? place : length - 1);
}

__device__ __forceinline__ float4 weights_of(const BicubicTap& tap) {
  return make_float4(tap.weights[0], tap.weights[1], tap.weights[2], tap.weights[3]);
}

__device__ __forceinline__ float sum_of_taps(float4 weights, float a, float b, float c, float d) {
  float value = weights.x * a;
  value = value + weights.y * b;
  value = value + weights.z * c;
  return value + weights.w * d;
}

// Fills in the taps of a rectangle; gives how many slots it holds.
__device__ __forceinline__ int prepare(const MosaicWork& work, int x0, int y0, int rows, MosaicTaps& taps) {
  const int thread = static_cast<int>(threadIdx.x);
  const int row = thread - kMosaicColumns;
  if (thread < kMosaicColumns) {
    const BicubicTap tap = bicubic_tap(work.source_width, work.across, x0 + thread);
    const int p0 = place_of(tap.first, 0, work.source_width);
    const int p1 = place_of(tap.first, 1, work.source_width);
    const int p2 = place_of(tap.first, 2, work.source_width);
    const int p3 = place_of(tap.first, 3, work.source_width);
    const int width = work.tile_width;
    taps.columns[thread] = make_int4(p0 / width, p1 / width, p2 / width, p3 / width);
    taps.offsets[thread] = make_int4(p0 % width, p1 % width, p2 % width, p3 % width);
    taps.across[thread] = weights_of(tap);
  } else if (row < rows) {
    const BicubicTap tap = bicubic_tap(work.source_height, work.down, y0 + row);
    taps.firsts[row] = tap.first;
    taps.down[row] = weights_of(tap);
  }
  __syncthreads();
  // Neighbours of the result share rows of the source, unless these lie too far apart to hold all between.
  const int first = place_of(taps.firsts[0], 0, work.source_height);
  const int span = place_of(taps.firsts[rows - 1], kTaps - 1, work.source_height) - first + 1;
  const bool shares = span <= work.slots;
  const int held = shares ? span : rows * kTaps;
  if (thread < rows) {
    const auto slot_of = [&](int tap) {
      const int place = place_of(taps.firsts[thread], tap, work.source_height);
      return (shares ? place - first : thread * kTaps + tap) * kMosaicColumns;
    };
    taps.slots[thread] = make_int4(slot_of(0), slot_of(1), slot_of(2), slot_of(3));
  }
  for (int slot = thread; slot < held; slot += kMosaicThreads) {
    const int place =
        shares ? first + slot : place_of(taps.firsts[slot / kTaps], slot % kTaps, work.source_height);
    taps.rows[slot] = make_int2(place / work.tile_height * work.tile_columns,
                                place % work.tile_height * static_cast<int>(work.args.width));
  }
  return held;
}

// The entries that make one sample; -1: one that does not exist.
struct Entries {
  int source;
  int mask;
  int background;
};

__device__ __forceinline__ Entries entries_of(const PatchGridDeviceArgs& args, std::int64_t sample) {
  const bool blends = args.blend_masks != nullptr;
  return {entry_of(args, sample, Pool::kSources), blends ? entry_of(args, sample, Pool::kMasks) : 0,
          blends ? entry_of(args, sample, Pool::kBackgrounds) : 0};
}

// Looks up a sample's tiles, one thread each. Returns whether all exist, once all threads are done.
__device__ __forceinline__ bool find_tiles(const MosaicWork& work, std::int64_t sample,
                                           const Entries& entries, int* places) {
  const PatchGridDeviceArgs& args = work.args;
  bool missing = entries.source < 0 || entries.mask < 0 || entries.background < 0;
  if (work.places == nullptr) {
    if (threadIdx.x == 0) places[0] = 0;
  } else if (!missing) {
    const std::int64_t tiles = args.grid * args.grid;
    const std::int32_t* ranked =
        work.places + (work.by_sample ? sample : std::int64_t{entries.source}) * args.top;
    for (std::int64_t tile = threadIdx.x; tile < tiles; tile += kMosaicThreads) {
      const std::int64_t pick = integer_of(args.picks, args.picks_are_wide, sample * tiles + tile);
      const bool is_there = pick >= 0 && pick < args.top;
      places[tile] = is_there ? ranked[pick] : 0;
      missing = missing || !is_there;
    }
  }
  return __syncthreads_or(missing) == 0;
}

// Scales the rows of all slots across: (channels, slots, kMosaicColumns).
__device__ __forceinline__ void scale_across(const MosaicWork& work, const MosaicTaps& taps, int held,
                                             int source, const int* places, float* scaled) {
  const int x = static_cast<int>(threadIdx.x) % kMosaicColumns;
  const int4 columns = taps.columns[x];
  const int4 offsets = taps.offsets[x];
  const float4 weights = taps.across[x];
  const int channels = static_cast<int>(work.args.channels);
  const float* image = work.args.images + source * (channels * work.plane);
  for (int slot = static_cast<int>(threadIdx.x) / kMosaicColumns; slot < held;
       slot += kMosaicThreads / kMosaicColumns) {
    const int2 row = taps.rows[slot];
    const int* tiles = places + row.x;
    const int a = tiles[columns.x] + row.y + offsets.x;
    const int b = tiles[columns.y] + row.y + offsets.y;
    const int c = tiles[columns.z] + row.y + offsets.z;
    const int d = tiles[columns.w] + row.y + offsets.w;
    const float* pixels = image;
    float* to = scaled + slot * kMosaicColumns + x;
#pragma unroll 1  // more registers would leave less room for other blocks
    for (int channel = 0; channel < channels; ++channel) {
      *to = sum_of_taps(weights, __ldg(pixels + a), __ldg(pixels + b), __ldg(pixels + c), __ldg(pixels + d));
      pixels += work.plane;
      to += work.slots * kMosaicColumns;
    }
  }
}

}  // namespace cgnrt
