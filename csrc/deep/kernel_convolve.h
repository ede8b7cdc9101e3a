// Convolutions as matrix products. Included by kernel.cc alone, once for every instruction set.
#pragma once

#include <algorithm>
#include <cstdint>

#include "deep/kernel_matrix.h"
#include "deep/kernel_transforms.h"

namespace cgnrt {
namespace deep {
namespace CGNRT_ISA {
namespace {

// Bytes of a task's input that should stay in the second-level cache while weights stream past it.
constexpr std::int64_t kBlockFloats = 80 * 1024;
// Tasks for each thread, so that none waits long for the last one.
constexpr std::int64_t kTasksPerThread = 4;

// Divides panels among tasks where there are too few rows to keep the threads busy.
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

// What a task of rows works out once for all panels.
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

inline Cut cut_direct(const Network& net, const Step& step, std::int64_t n, int threads) {
  const Picture& in = net.pictures[step.in[0]];
  const Picture& out = net.pictures[step.out];
  const int depth = whole_lines(in.channels);
  const std::int64_t rows = n * out.pixels();
  Cut cut;
  // Few rows: all in one task, so that the weights, which are then most of the traffic, are read once.
  cut.rows = rows <= 256 ? static_cast<int>(rows) : whole_rows(kBlockFloats / depth, 96);
  share_panels(cut, (rows + cut.rows - 1) / cut.rows, panels_of(out.channels), threads);
  cut.scratch = Rows::floats(cut.rows, step.kernel * step.kernel);
  if (!step.before.idle()) cut.scratch += static_cast<std::int64_t>(cut.rows) * depth;
  return cut;
}

// Rows first to end - 1 of a 1x1 convolution's input, mapped, into `to`.
inline void map_rows(const Frame& f, std::int64_t first, std::int64_t end, float* to) {
  const Picture& in = f.in();
  const float* const data = f.data(in);
  const int depth = whole_lines(in.channels);
  for (std::int64_t r = first; r < end; ++r, to += depth) {
    const float* from = data + r * in.stride;
    const std::int64_t map = r / in.pixels() * depth;
    for (int c = 0; c < depth; c += kRun) {
      Run v = load(from + c);
      if (f.before.scale != nullptr) v *= load(f.before.scale + map + c);
      if (f.before.shift != nullptr) v += load(f.before.shift + map + c);
      store(to + c, activate(f.step->before.act, v));
    }
  }
}

inline void find_rows(const Frame& f, const Finish& finish, std::int64_t first, int count,
                      const float* mapped, const Rows& rows) {
  const Step& step = *f.step;
  const Picture& in = f.in();
  const float* const data = f.data(in);
  const int depth = whole_lines(in.channels);
  const int taps = step.kernel * step.kernel;
  const int reach = step.kernel / 2;
  for (int r = 0; r < count; ++r) {
    const PixelAt at = pixel_at(first + r, in.height, in.width);
    rows.places[r] = finish.place(at.image, at.y, at.x);
    const float** const pixels = rows.pixels + r / kRows * kRows * taps + r % kRows;
    if (mapped != nullptr) {
      pixels[0] = mapped + static_cast<std::int64_t>(r) * depth;
    } else {
      for (int t = 0; t < taps; ++t) {
        pixels[t * kRows] = pixel_or_zeros(f, in, data, at.image, at.y + (t / 3 - reach) * step.dilation,
                                           at.x + (t % 3 - reach) * step.dilation);
      }
    }
  }
}

inline void run_direct(const Frame& f, const Cut& cut, std::int64_t task, float* scratch) {
  const Step& step = *f.step;
  const Finish finish(f);
  const int depth = whole_lines(f.in().channels);
  const int taps = step.kernel * step.kernel;
  const std::int64_t first = task / cut.panel_tasks * cut.rows;
  const int count = static_cast<int>(std::min<std::int64_t>(cut.rows, f.n * f.in().pixels() - first));
  const Rows rows(scratch, cut.rows);
  float* const mapped = step.before.idle() ? nullptr : scratch + Rows::floats(cut.rows, taps);
  if (mapped != nullptr) map_rows(f, first, first + count, mapped);
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
      for (int m = 0; m < block; ++m) {
        for (int c = 0; c < left; c += kRun) {
          finish(rows.places[r + m], panel * kTile + c, load(sums + m * kTile + c));
        }
      }
    }
  }
}

inline void pack_direct(Step& step, const Picture& in, const Picture& out) {
  const int taps = step.kernel * step.kernel;
  const int depth = whole_lines(in.channels);
  const int panels = panels_of(out.channels);
  step.packed = Floats(static_cast<std::size_t>(panels) * taps * depth * kTile);
  for (int m = 0; m < out.channels; ++m) {
    for (int c = 0; c < in.channels; ++c) {
      const float* from = step.weight + (static_cast<std::int64_t>(m) * in.channels + c) * taps;
      for (int t = 0; t < taps; ++t) {
        const std::int64_t row = (static_cast<std::int64_t>(m / kTile) * taps + t) * depth + c;
        step.packed.data()[row * kTile + m % kTile] = from[t];
      }
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

template <typename T>
Cut cut_tiles(const Network& net, const Step& step, std::int64_t n, int threads) {
  const Picture& in = net.pictures[step.in[0]];
  const int depth = whole_lines(in.channels);
  const std::int64_t tiles = n * Tiles<T>(in).count();
  Cut cut;
  cut.rows = static_cast<int>(
      std::min<std::int64_t>(tiles, std::max(2 * kRows, whole_rows(kBlockFloats / (T::kCount * depth), 96))));
  share_panels(cut, (tiles + cut.rows - 1) / cut.rows, panels_of(net.pictures[step.out].channels), threads);
  cut.scratch = cut.rows * (T::kCount * (depth + kTile) + static_cast<std::int64_t>(sizeof(PixelAt)) / 4);
  return cut;
}

template <typename T>
void run_tiles(const Frame& f, const Cut& cut, std::int64_t task, float* scratch) {
  const Step& step = *f.step;
  const Picture& in = f.in();
  const Finish finish(f);
  const float* const data = f.data(in);
  const int depth = whole_lines(in.channels);
  const Tiles<T> tiles(in);
  const std::int64_t first = task / cut.panel_tasks * cut.rows;
  const int count = static_cast<int>(std::min<std::int64_t>(cut.rows, f.n * tiles.count() - first));
  const std::int64_t step_in = static_cast<std::int64_t>(count) * depth;
  PixelAt* const places = reinterpret_cast<PixelAt*>(scratch + cut.rows * T::kCount * (depth + kTile));
  for (int k = 0; k < count; ++k) {
    const PixelAt tile = places[k] = pixel_at(first + k, tiles.rows, tiles.columns);
    const float* pixels[T::kIn * T::kIn];
    for (int i = 0; i < T::kIn; ++i) {
      for (int j = 0; j < T::kIn; ++j) {
        pixels[i * T::kIn + j] = pixel_or_zeros(f, in, data, tile.image, tile.y * T::kStep + i - T::kLead,
                                                tile.x * T::kStep + j - T::kLead);
      }
    }
    for (int c = 0; c < depth; c += kRun) {
      T::forward(pixels, c, scratch + static_cast<std::int64_t>(k) * depth + c, step_in);
    }
  }
  float* const sums = scratch + static_cast<std::int64_t>(cut.rows) * T::kCount * depth;
  const std::int64_t step_out = static_cast<std::int64_t>(count) * kTile;
  const int first_panel = static_cast<int>(task % cut.panel_tasks) * cut.panels;
  const int end_panel = std::min(panels_of(finish.out.channels), first_panel + cut.panels);
  const std::int64_t matrix = static_cast<std::int64_t>(depth) * kTile;
  for (int panel = first_panel; panel < end_panel; ++panel) {
    const float* const weight = step.packed.data() + panel * T::kCount * matrix;
    for (int k = 0; k < T::kCount; ++k) {
      for (int r = 0; r < count; r += kRows) {
        const int block = std::min(kRows, count - r);
        const float* rows[kRows];
        for (int m = 0; m < block; ++m)
          rows[m] = scratch + k * step_in + static_cast<std::int64_t>(r + m) * depth;
        multiply_rows(block, rows, 1, depth, weight + k * matrix, sums + k * step_out + r * kTile);
      }
    }
    const int left = std::min(kTile, finish.lines - panel * kTile);
    for (int k = 0; k < count; ++k) {
      const PixelAt& tile = places[k];
      const int y = tile.y * T::kOut, x = tile.x * T::kOut;
      const int height = std::min(T::kOut, finish.out.height - y);
      const int width = std::min(T::kOut, finish.out.width - x);
      for (int c = 0; c < left; c += kRun) {
        Run pixels[T::kOut * T::kOut];
        T::inverse(sums + static_cast<std::int64_t>(k) * kTile + c, step_out, pixels);
        for (int i = 0; i < height; ++i) {
          for (int j = 0; j < width; ++j) {
            finish(finish.place(tile.image, y + i, x + j), panel * kTile + c, pixels[i * T::kOut + j]);
          }
        }
      }
    }
  }
}

template <typename T>
void pack_tiles(Step& step, const Picture& in, const Picture& out) {
  const int depth = whole_lines(in.channels);
  const int panels = panels_of(out.channels);
  const std::int64_t matrix = static_cast<std::int64_t>(depth) * kTile;
  step.packed = Floats(static_cast<std::size_t>(panels) * T::kCount * matrix);
  double factors[T::kCount];
  for (int m = 0; m < out.channels; ++m) {
    for (int c = 0; c < in.channels; ++c) {
      // A transposed convolution's weights have the input channels first.
      const std::int64_t pair = T::kTaps == 16 ? static_cast<std::int64_t>(c) * out.channels + m
                                               : static_cast<std::int64_t>(m) * in.channels + c;
      T::weight(step.weight + pair * T::kTaps, factors);
      float* to = step.packed.data() + (m / kTile) * T::kCount * matrix +
                  static_cast<std::int64_t>(c) * kTile + m % kTile;
      for (int k = 0; k < T::kCount; ++k) to[k * matrix] = static_cast<float>(factors[k]);
    }
  }
}

// Thin: vectors along the input channels, for results of a few channels, where a matrix tile would be mostly
// empty.

constexpr int kThinPixels = 2;

inline Cut cut_thin(const Network& net, const Step& step, std::int64_t n, int) {
  Cut cut;
  cut.tasks = n * net.pictures[step.out].height;
  return cut;
}

template <int Channels>
void run_thin_row(const Frame& f, std::int64_t image, int y) {
  const Step& step = *f.step;
  const Picture& in = f.in();
  const Finish finish(f);
  const float* const data = f.data(in);
  const int depth = whole_lines(in.channels);
  const int taps = step.kernel * step.kernel;
  const int reach = step.kernel / 2;
  for (int x = 0; x < in.width; x += kThinPixels) {
    Run sum[kThinPixels][Channels] = {};
    const float* weight = step.packed.data();
    for (int t = 0; t < taps; ++t) {
      const float* pixel[kThinPixels];
      for (int p = 0; p < kThinPixels; ++p) {
        pixel[p] = pixel_or_zeros(f, in, data, image, y + (t / 3 - reach) * step.dilation,
                                  x + p + (t % 3 - reach) * step.dilation);
      }
      for (int c = 0; c < depth; c += kRun, weight += Channels * kRun) {
#pragma GCC unroll 4
        for (int m = 0; m < Channels; ++m) {
          const Run factor = load(weight + m * kRun);
#pragma GCC unroll 2
          for (int p = 0; p < kThinPixels; ++p) sum[p][m] += factor * load(pixel[p] + c);
        }
      }
    }
    for (int p = 0; p < kThinPixels && x + p < in.width; ++p) {
      Run v{};
      for (int m = 0; m < Channels; ++m) v[m] = sum_of(sum[p][m]);
      finish(finish.place(image, y, x + p), 0, v);
    }
  }
}

inline void run_thin(const Frame& f, const Cut&, std::int64_t task, float*) {
  const std::int64_t image = task / f.out().height;
  const int y = static_cast<int>(task % f.out().height);
  switch (f.out().channels) {
    case 1:
      return run_thin_row<1>(f, image, y);
    case 2:
      return run_thin_row<2>(f, image, y);
    case 3:
      return run_thin_row<3>(f, image, y);
    default:
      return run_thin_row<4>(f, image, y);
  }
}

inline void pack_thin(Step& step, const Picture& in, const Picture& out) {
  const int taps = step.kernel * step.kernel;
  const int depth = whole_lines(in.channels);
  step.packed = Floats(static_cast<std::size_t>(taps) * depth * out.channels);
  for (int m = 0; m < out.channels; ++m) {
    for (int c = 0; c < in.channels; ++c) {
      for (int t = 0; t < taps; ++t) {
        const std::int64_t line = (static_cast<std::int64_t>(t) * depth + c) / kRun * out.channels + m;
        step.packed.data()[line * kRun + c % kRun] =
            step.weight[(static_cast<std::int64_t>(m) * in.channels + c) * taps + t];
      }
    }
  }
}

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace deep
}  // namespace cgnrt
