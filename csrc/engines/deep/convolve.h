// Convolutions as matrix products. Included by deep_kernel.cc only, once for every instruction set.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engines/deep/matrix.h"
#include "engines/deep/transforms.h"

namespace cgnrt {
namespace deep {
namespace CGNRT_ISA {
namespace {

// Bytes of a task's input that should stay in the second-level cache while weights stream past it.
constexpr std::int64_t kBlockFloats = 80 * 1024;
// Tasks for each thread, so that none waits long for the last one.
constexpr std::int64_t kTasksPerThread = 4;

// Divides panels among tasks if the rows alone are too few to keep the threads busy.
inline void share_panels(Cut& cut, std::int64_t row_tasks, int panels, int threads) {
  const std::int64_t wanted = threads > 1 ? threads * kTasksPerThread : 1;
  const std::int64_t parts = std::clamp<std::int64_t>((wanted + row_tasks - 1) / row_tasks, 1, panels);
  cut.panels = static_cast<int>((panels + parts - 1) / parts);
  cut.panel_tasks = (panels + cut.panels - 1) / cut.panels;
  cut.tasks = row_tasks * cut.panel_tasks;
}

inline int whole_rows(std::int64_t rows, std::int64_t most) {
  return static_cast<int>(std::clamp<std::int64_t>(rows / kRows * kRows, kRows, most));
}

// Direct: every pixel of the result is a row, made of the pixels under its taps.

// A 3x3 convolution of few channels, and a 1x1 that maps its input, make rows of their own.
inline bool makes_rows(const Step& step) { return step.method == Method::kGathered || !step.before.idle(); }
inline int taps_of(const Step& step) {
  return step.method == Method::kGathered ? 1 : step.kernel * step.kernel;
}
inline int depth_of(const Step& step, const Picture& in) {
  return step.method == Method::kGathered ? 9 * in.channels : whole_lines(in.channels);
}

// The addresses of a task's rows, computed once for all panels.
struct Rows {
  Place* places;
  const float** pixels;  // kRows by kRows: of every tap, then of every row of the tile
  static std::int64_t floats(int rows, int taps) {
    const std::int64_t whole = (rows + kRows - 1) / kRows * kRows;
    return whole * static_cast<std::int64_t>(sizeof(Place) + taps * sizeof(float*)) / 4;
  }
  Rows(float* memory, int rows)
      : places(reinterpret_cast<Place*>(memory)),
        pixels(reinterpret_cast<const float**>(places + (rows + kRows - 1) / kRows * kRows)) {}
};

inline Cut cut_direct(const PictureNetwork& net, const Step& step, int threads) {
  const Picture& in = net.pictures[step.in[0]];
  const Picture& out = net.pictures[step.out];
  const int depth = depth_of(step, in);
  const std::int64_t rows = out.pixels();
  Cut cut;
  // Few rows: all in one task, so that the weights, which are then most of the traffic, are read once.
  cut.rows = rows <= 256 ? static_cast<int>(rows) : whole_rows(kBlockFloats / depth, 96);
  share_panels(cut, (rows + cut.rows - 1) / cut.rows, panels_of(out.channels), threads);
  cut.scratch = Rows::floats(cut.rows, taps_of(step));
  if (makes_rows(step)) cut.scratch += static_cast<std::int64_t>(cut.rows) * depth;
  return cut;
}

// The numbers under the taps of pixels first to end - 1, one row behind the other.
inline void gather_rows(const Frame& f, std::int64_t first, std::int64_t end, float* to) {
  const Picture& in = f.in();
  const float* const data = f.data(in);
  const int dilation = f.step->dilation;
  for (std::int64_t r = first; r < end; ++r) {
    const PixelAt at = pixel_at(r, in.width);
    for (int t = 0; t < 9; ++t) {
      const float* pixel =
          pixel_or_zeros(f, in, data, at.y + (t / 3 - 1) * dilation, at.x + (t % 3 - 1) * dilation);
      for (int c = 0; c < in.channels; ++c) *to++ = pixel[c];
    }
  }
}

// Rows first to end - 1 of a 1x1 convolution's input, mapped, into `to`.
inline void map_rows(const Frame& f, std::int64_t first, std::int64_t end, float* to) {
  const Picture& in = f.in();
  const float* const data = f.data(in);
  const int depth = whole_lines(in.channels);
  for (std::int64_t r = first; r < end; ++r, to += depth) {
    const float* from = data + r * in.stride;
    for (int c = 0; c < depth; c += kRun) {
      Run v = load(from + c);
      if (f.before.scale != nullptr) v *= load(f.before.scale + c);
      if (f.before.shift != nullptr) v += load(f.before.shift + c);
      store(to + c, activate(f.step->before.act, v));
    }
  }
}

inline void find_rows(const Frame& f, const Finish& finish, std::int64_t first, int count,
                      const float* mapped, const Rows& rows) {
  const Step& step = *f.step;
  const Picture& in = f.in();
  const float* const data = f.data(in);
  const int depth = depth_of(step, in);
  const int taps = taps_of(step);
  const int reach = step.kernel / 2;
  for (int r = 0; r < count; ++r) {
    const PixelAt at = pixel_at(first + r, in.width);
    rows.places[r] = finish.place(at.y, at.x);
    const float** const pixels = rows.pixels + r / kRows * kRows * taps + r % kRows;
    if (mapped != nullptr) {
      pixels[0] = mapped + static_cast<std::int64_t>(r) * depth;
    } else {
      for (int t = 0; t < taps; ++t) {
        pixels[t * kRows] = pixel_or_zeros(f, in, data, at.y + (t / 3 - reach) * step.dilation,
                                           at.x + (t % 3 - reach) * step.dilation);
      }
    }
  }
}

inline void run_direct(const Frame& f, const Cut& cut, std::int64_t task, float* scratch) {
  const Step& step = *f.step;
  const Finish finish(f);
  const int depth = depth_of(step, f.in());
  const int taps = taps_of(step);
  const std::int64_t first = task / cut.panel_tasks * cut.rows;
  const int count = static_cast<int>(std::min<std::int64_t>(cut.rows, f.in().pixels() - first));
  const Rows rows(scratch, cut.rows);
  float* const mapped = makes_rows(step) ? scratch + Rows::floats(cut.rows, taps) : nullptr;
  if (step.method == Method::kGathered) {
    gather_rows(f, first, first + count, mapped);
  } else if (mapped != nullptr) {
    map_rows(f, first, first + count, mapped);
  }
  find_rows(f, finish, first, count, mapped, rows);
  const int first_panel = static_cast<int>(task % cut.panel_tasks) * cut.panels;
  const int end_panel = std::min(panels_of(finish.out.channels), first_panel + cut.panels);
  const std::int64_t panel_floats = static_cast<std::int64_t>(taps) * depth * kTile;
  alignas(64) float sums[kRows * kTile];
  for (int panel = first_panel; panel < end_panel; ++panel) {
    const float* const weight = step.packed.data() + panel * panel_floats;
    const int left = std::min(kTile, finish.lines - panel * kTile);
    for (int r = 0; r < count; r += kRows) {
      const int block = std::min(kRows, count - r);
      multiply_rows(block, rows.pixels + r * taps, taps, depth, weight, sums);
      finish.rows(finish, rows.places + r, block, sums, panel * kTile, left);
    }
  }
}

inline std::int64_t panel_floats_direct(const Step& step, const Picture& in) {
  return static_cast<std::int64_t>(taps_of(step)) * depth_of(step, in) * kTile;
}

inline void pack_direct(const Step& step, const Picture& in, const Picture& out, int panel, float* to) {
  const int taps = step.kernel * step.kernel;
  const int depth = step.method == Method::kGathered ? in.channels : whole_lines(in.channels);
  for (int lane = 0; lane < std::min(kTile, out.channels - panel * kTile); ++lane) {
    const float* from = step.weight + static_cast<std::int64_t>(panel * kTile + lane) * in.channels * taps;
    for (int c = 0; c < in.channels; ++c) {
      for (int t = 0; t < taps; ++t) to[(static_cast<std::int64_t>(t) * depth + c) * kTile + lane] = *from++;
    }
  }
}

// Transformed: every tile is a row of kCount matrix products.

template <typename T>
struct Tiles {
  int rows, columns;
  explicit Tiles(const Picture& in)
      : rows((in.height + T::kStep - 1) / T::kStep), columns((in.width + T::kStep - 1) / T::kStep) {}
  std::int64_t count() const { return static_cast<std::int64_t>(rows) * columns; }
};

// Weights that leave the second-level cache are best read once for many tiles. The tiles' transforms are then
// made first, and it is they that come from further away: worth it up to twice the weights, and up to these
// floats.
constexpr std::int64_t kLargeWeights = 384 * 1024;
constexpr std::int64_t kMostTransforms = std::int64_t{6} << 20;
constexpr int kPanelGroup = 2;  // that pass over such transforms together

template <typename T>
Cut cut_tiles(const PictureNetwork& net, const Step& step, int threads) {
  const Picture& in = net.pictures[step.in[0]];
  const int depth = whole_lines(in.channels);
  const int panels = panels_of(net.pictures[step.out].channels);
  const std::int64_t tiles = Tiles<T>(in).count();
  const std::int64_t transforms = tiles * T::kCount * depth;
  Cut cut;
  int group = 1;
  const std::int64_t weights = static_cast<std::int64_t>(panels) * T::kCount * depth * kTile;
  if (weights > kLargeWeights && transforms <= std::min(2 * weights, kMostTransforms)) {
    cut.first_tasks = (tiles + kRows - 1) / kRows;
    cut.shared = transforms;
    group = kPanelGroup;
    cut.rows = static_cast<int>(std::min<std::int64_t>(tiles, whole_rows(2 * kBlockFloats / depth, 192)));
  } else {
    const std::int64_t fit = whole_rows(kBlockFloats / (T::kCount * depth), 96);
    cut.rows = static_cast<int>(std::min<std::int64_t>(tiles, std::max<std::int64_t>(2 * kRows, fit)));
    cut.scratch = static_cast<std::int64_t>(cut.rows) * T::kCount * depth;
  }
  share_panels(cut, (tiles + cut.rows - 1) / cut.rows, panels, threads);
  cut.scratch += cut.rows * (static_cast<std::int64_t>(group) * T::kCount * kTile +
                             T::kOut * T::kOut * static_cast<std::int64_t>(sizeof(Place)) / 4);
  return cut;
}

// The transforms of `count` tiles from `first` on; `to` is of the first, and products are `step` floats
// apart.
template <typename T>
void transform_tiles(const Frame& f, std::int64_t first, int count, float* to, std::int64_t step) {
  const Picture& in = f.in();
  const float* const data = f.data(in);
  const int depth = whole_lines(in.channels);
  const Tiles<T> tiles(in);
  for (int k = 0; k < count; ++k) {
    const PixelAt tile = pixel_at(first + k, tiles.columns);
    const float* pixels[T::kIn * T::kIn];
    for (int i = 0; i < T::kIn; ++i) {
      for (int j = 0; j < T::kIn; ++j) {
        pixels[i * T::kIn + j] =
            pixel_or_zeros(f, in, data, tile.y * T::kStep + i - T::kLead, tile.x * T::kStep + j - T::kLead);
      }
    }
    for (int c = 0; c < depth; c += kRun) {
      T::forward(pixels, c, to + static_cast<std::int64_t>(k) * depth + c, step);
    }
  }
}

template <typename T>
void run_first_tiles(const Frame& f, const Cut&, std::int64_t task) {
  const std::int64_t tiles = Tiles<T>(f.in()).count();
  const int depth = whole_lines(f.in().channels);
  const std::int64_t first = task * kRows;
  transform_tiles<T>(f, first, static_cast<int>(std::min<std::int64_t>(kRows, tiles - first)),
                     f.shared + first * depth, tiles * depth);
}

// The products of one panel, back to pixels and out.
template <typename T>
void finish_tiles(const Finish& finish, std::int64_t first, int count, int columns, int panel,
                  const float* sums, const Place* places) {
  const std::int64_t step = static_cast<std::int64_t>(count) * kTile;
  const int left = std::min(kTile, finish.lines - panel * kTile);
  alignas(64) float pixels[T::kOut * T::kOut * kTile];
  for (int k = 0; k < count; ++k, places += T::kOut * T::kOut) {
    for (int c = 0; c < left; c += kRun) {
      Run out[T::kOut * T::kOut];
      T::inverse(sums + static_cast<std::int64_t>(k) * kTile + c, step, out);
#pragma GCC unroll 16
      for (int i = 0; i < T::kOut * T::kOut; ++i) store(pixels + i * kTile + c, out[i]);
    }
    const PixelAt tile = pixel_at(first + k, columns);
    const int height = std::min(T::kOut, finish.out.height - tile.y * T::kOut);
    const int width = std::min(T::kOut, finish.out.width - tile.x * T::kOut);
    if (height == T::kOut && width == T::kOut) {
      finish.rows(finish, places, T::kOut * T::kOut, pixels, panel * kTile, left);
      continue;
    }
    for (int i = 0; i < height; ++i) {
      finish.rows(finish, places + i * T::kOut, width, pixels + i * T::kOut * kTile, panel * kTile, left);
    }
  }
}

template <typename T>
void run_tiles(const Frame& f, const Cut& cut, std::int64_t task, float* scratch) {
  const Finish finish(f);
  const int depth = whole_lines(f.in().channels);
  const Tiles<T> tiles(f.in());
  const std::int64_t first = task / cut.panel_tasks * cut.rows;
  const int count = static_cast<int>(std::min<std::int64_t>(cut.rows, tiles.count() - first));
  const bool made = cut.first_tasks > 0;
  const std::int64_t step_in = (made ? tiles.count() : count) * depth;
  const float* transforms = f.shared + first * depth;
  if (!made) {
    transform_tiles<T>(f, first, count, scratch, step_in);
    transforms = scratch;
    scratch += static_cast<std::int64_t>(cut.rows) * T::kCount * depth;
  }
  Place* const places = reinterpret_cast<Place*>(scratch);
  for (int k = 0; k < count; ++k) {
    const PixelAt tile = pixel_at(first + k, tiles.columns);
    for (int i = 0; i < T::kOut * T::kOut; ++i) {
      places[k * T::kOut * T::kOut + i] =
          finish.place(tile.y * T::kOut + i / T::kOut, tile.x * T::kOut + i % T::kOut);
    }
  }
  float* const sums = scratch + cut.rows * T::kOut * T::kOut * static_cast<std::int64_t>(sizeof(Place)) / 4;
  const std::int64_t sums_of_panel = static_cast<std::int64_t>(count) * kTile * T::kCount;
  const std::int64_t matrix = static_cast<std::int64_t>(depth) * kTile;
  const int first_panel = static_cast<int>(task % cut.panel_tasks) * cut.panels;
  const int end_panel = std::min(panels_of(finish.out.channels), first_panel + cut.panels);
  const int group = made ? kPanelGroup : 1;
  for (int begin = first_panel; begin < end_panel; begin += group) {
    const int end = std::min(begin + group, end_panel);
    for (int k = 0; k < T::kCount; ++k) {
      for (int panel = begin; panel < end; ++panel) {
        const float* const weight =
            f.step->packed.data() + (static_cast<std::int64_t>(panel) * T::kCount + k) * matrix;
        float* const to =
            sums + (panel - begin) * sums_of_panel + static_cast<std::int64_t>(k) * count * kTile;
        for (int r = 0; r < count; r += kRows) {
          const int block = std::min(kRows, count - r);
          const float* rows[kRows];
          for (int m = 0; m < block; ++m)
            rows[m] = transforms + k * step_in + static_cast<std::int64_t>(r + m) * depth;
          multiply_rows(block, rows, 1, depth, weight, to + r * kTile);
        }
      }
    }
    for (int panel = begin; panel < end; ++panel) {
      finish_tiles<T>(finish, first, count, tiles.columns, panel, sums + (panel - begin) * sums_of_panel,
                      places);
    }
  }
}

template <typename T>
void pack_tiles(const Step& step, const Picture& in, const Picture& out, int panel, float* to) {
  const std::int64_t matrix = static_cast<std::int64_t>(whole_lines(in.channels)) * kTile;
  const int first = panel * kTile;
  const int left = std::min(kTile, out.channels - first);
  Lanes taps[T::kTaps] = {};
  Lanes factors[T::kCount];
  for (int c = 0; c < in.channels; ++c, to += kTile) {
    for (int lane = 0; lane < left; ++lane) {
      // A transposed convolution's weights have the input channels first.
      const std::int64_t pair = T::kTaps == 16 ? static_cast<std::int64_t>(c) * out.channels + first + lane
                                               : static_cast<std::int64_t>(first + lane) * in.channels + c;
      for (int t = 0; t < T::kTaps; ++t) taps[t][lane] = step.weight[pair * T::kTaps + t];
    }
    T::weight(taps, factors);
    for (int k = 0; k < T::kCount; ++k) {
      for (int lane = 0; lane < kTile; ++lane) to[k * matrix + lane] = static_cast<float>(factors[k][lane]);
    }
  }
}

template <typename T>
std::int64_t panel_floats_tiles(const Picture& in) {
  return static_cast<std::int64_t>(whole_lines(in.channels)) * T::kCount * kTile;
}

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace deep
}  // namespace cgnrt
