// Convolutions to a few channels, where a matrix tile would be mostly empty: vectors along the input
// channels. Included by deep_kernel.cc only, once for every instruction set.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engines/deep/matrix.h"

namespace cgnrt {
namespace deep {
namespace CGNRT_ISA {
namespace {

constexpr int kThinPixels = 2;

inline Cut cut_thin(const PictureNetwork& net, const Step& step, int) {
  Cut cut;
  cut.tasks = net.pictures[step.out].height;
  return cut;
}

template <int Channels>
void run_thin_row(const Frame& f, int y) {
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
        pixel[p] = pixel_or_zeros(f, in, data, y + (t / 3 - reach) * step.dilation,
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
      finish(finish.place(y, x + p), 0, v);
    }
  }
}

inline void run_thin(const Frame& f, const Cut&, std::int64_t task, float*) {
  const int y = static_cast<int>(task);
  switch (f.out().channels) {
    case 1:
      return run_thin_row<1>(f, y);
    case 2:
      return run_thin_row<2>(f, y);
    case 3:
      return run_thin_row<3>(f, y);
    default:
      return run_thin_row<4>(f, y);
  }
}

inline std::int64_t panel_floats_thin(const Step& step, const Picture& in, const Picture& out) {
  return static_cast<std::int64_t>(step.kernel * step.kernel) * whole_lines(in.channels) * out.channels;
}

inline void pack_thin(const Step& step, const Picture& in, const Picture& out, float* to) {
  const int taps = step.kernel * step.kernel;
  const int depth = whole_lines(in.channels);
  for (int m = 0; m < out.channels; ++m) {
    for (int c = 0; c < in.channels; ++c) {
      for (int t = 0; t < taps; ++t) {
        const std::int64_t line = (static_cast<std::int64_t>(t) * depth + c) / kRun * out.channels + m;
        to[line * kRun + c % kRun] = step.weight[(static_cast<std::int64_t>(m) * in.channels + c) * taps + t];
      }
    }
  }
}

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace deep
}  // namespace cgnrt
