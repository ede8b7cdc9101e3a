// softmax(query key^T) value over pixels (BigGAN's self-attention). Included by deep_kernel.cc only, once for
// every instruction set.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engines/deep/matrix.h"

namespace cgnrt {
namespace deep {
namespace CGNRT_ISA {
namespace {

struct AttentionSizes {
  std::int64_t pixels;  // of the query
  int keys;             // pixels of key and value
  int key_lanes;        // in whole panels
  int depth;            // channels of query and key
  int panels;           // of the value's channels
  AttentionSizes(const PictureNetwork& net, const Step& step)
      : pixels(net.pictures[step.in[0]].pixels()),
        keys(static_cast<int>(net.pictures[step.in[1]].pixels())),
        key_lanes((keys + kTile - 1) / kTile * kTile),
        depth(whole_lines(net.pictures[step.in[0]].channels)),
        panels(panels_of(net.pictures[step.in[2]].channels)) {}
  // Floats of key and value as panels.
  std::int64_t key_floats() const { return static_cast<std::int64_t>(key_lanes) * depth; }
  std::int64_t value_floats() const { return static_cast<std::int64_t>(panels) * keys * kTile; }
};

inline Cut cut_attention(const PictureNetwork& net, const Step& step, int) {
  const AttentionSizes sizes(net, step);
  Cut cut;
  cut.rows = 4 * kRows;
  cut.first_tasks = sizes.key_lanes / kTile + sizes.panels;
  cut.tasks = (sizes.pixels + cut.rows - 1) / cut.rows;
  cut.scratch = static_cast<std::int64_t>(cut.rows) * sizes.key_lanes;
  cut.shared = sizes.key_floats() + sizes.value_floats();
  return cut;
}

// Panels of the key, then of the value.
inline void pack_attention(const Frame& f, const Cut&, std::int64_t task) {
  const AttentionSizes sizes(*f.network, *f.step);
  const Picture &key = f.in(1), &value = f.in(2);
  const std::int64_t key_panels = sizes.key_lanes / kTile;
  if (task < key_panels) {
    float* to = f.shared + task * kTile * sizes.depth;
    for (int k = 0; k < sizes.depth; ++k) {
      for (int lane = 0; lane < kTile; ++lane) {
        const std::int64_t pixel = task * kTile + lane;
        // Behind the key's channels may lie another picture's: zeros there also cancel the query's.
        const bool own = pixel < sizes.keys && k < key.channels;
        *to++ = own ? f.data(key)[pixel * key.stride + k] : 0;
      }
    }
    return;
  }
  const int first = static_cast<int>(task - key_panels) * kTile;
  float* to = f.shared + sizes.key_floats() + static_cast<std::int64_t>(first) * sizes.keys;
  const int left = std::min(kTile, whole_lines(value.channels) - first);
  for (int pixel = 0; pixel < sizes.keys; ++pixel, to += kTile) {
    const float* from = f.data(value) + static_cast<std::int64_t>(pixel) * value.stride + first;
    for (int c = 0; c < kTile; ++c) to[c] = c < left ? from[c] : 0;
  }
}

inline void softmax(float* row, int count, int lanes) {
  for (int k = count; k < lanes; ++k) row[k] = -3.0e38f;  // their shares are as good as zero
  Run top = load(row);
  for (int k = kRun; k < lanes; k += kRun) top = larger(top, load(row + k));
  float most = top[0];
  for (int k = 1; k < kRun; ++k) most = std::max(most, top[k]);
  Run sums{};
  for (int k = 0; k < lanes; k += kRun) {
    const Run e = exponential_below_one(load(row + k) - most);
    store(row + k, e);
    sums += e;
  }
  const Run share = all(1 / sum_of(sums));
  for (int k = 0; k < lanes; k += kRun) store(row + k, load(row + k) * share);
}

inline void run_attention(const Frame& f, const Cut& cut, std::int64_t task, float* scratch) {
  const AttentionSizes sizes(*f.network, *f.step);
  const Picture& query = f.in();
  const Finish finish(f);
  const std::int64_t first = task * cut.rows;
  const int rows = static_cast<int>(std::min<std::int64_t>(cut.rows, sizes.pixels - first));
  const float* const keys = f.shared;
  const float* const values = keys + sizes.key_floats();
  alignas(64) float sums[kRows * kTile];
  for (int r = 0; r < rows; r += kRows) {
    const int count = std::min(kRows, rows - r);
    const float* pixels[kRows];
    for (int m = 0; m < count; ++m) {
      pixels[m] = f.data(query) + (first + r + m) * query.stride;
    }
    for (int lane = 0; lane < sizes.key_lanes; lane += kTile) {
      multiply_rows(count, pixels, 1, sizes.depth, keys + static_cast<std::int64_t>(lane) * sizes.depth,
                    sums);
      for (int m = 0; m < count; ++m) {
        std::copy_n(sums + m * kTile, kTile,
                    scratch + static_cast<std::int64_t>(r + m) * sizes.key_lanes + lane);
      }
    }
    for (int m = 0; m < count; ++m) {
      softmax(scratch + static_cast<std::int64_t>(r + m) * sizes.key_lanes, sizes.keys, sizes.key_lanes);
    }
  }
  for (int panel = 0; panel < sizes.panels; ++panel) {
    const float* const weight = values + static_cast<std::int64_t>(panel) * sizes.keys * kTile;
    const int left = std::min(kTile, finish.lines - panel * kTile);
    for (int r = 0; r < rows; r += kRows) {
      const int count = std::min(kRows, rows - r);
      const float* shares[kRows];
      for (int m = 0; m < count; ++m)
        shares[m] = scratch + static_cast<std::int64_t>(r + m) * sizes.key_lanes;
      multiply_rows(count, shares, 1, sizes.keys, weight, sums);
      Place places[kRows];
      for (int m = 0; m < count; ++m) {
        const PixelAt at = pixel_at(first + r + m, query.width);
        places[m] = finish.place(at.y, at.x);
      }
      finish.rows(finish, places, count, sums, panel * kTile, left);
    }
  }
}

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace deep
}  // namespace cgnrt
