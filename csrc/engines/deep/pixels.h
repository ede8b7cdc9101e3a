// Steps without weights. Included by deep_kernel.cc only, once for every instruction set.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engines/deep/matrix.h"

namespace cgnrt {
namespace deep {
namespace CGNRT_ISA {
namespace {

// All of these: a task is a line of the result's pixels.
inline Cut cut_lines(const PictureNetwork& net, const Step& step, int) {
  Cut cut;
  cut.tasks = net.pictures[step.out].height;
  return cut;
}

// A vector of the caller's, channels first or last.
inline void run_start(const Frame& f, const Cut&, std::int64_t task, float*) {
  const int y = static_cast<int>(task);
  const Finish finish(f);
  const Picture& out = finish.out;
  const float* from = f.vector;
  for (int x = 0; x < out.width; ++x) {
    const Place place = finish.place(y, x);
    const std::int64_t pixel = static_cast<std::int64_t>(y) * out.width + x;
    for (int c = 0; c < finish.lines; c += kRun) {
      Run v{};
      for (int k = 0; k < std::min(kRun, out.channels - c); ++k) {
        v[k] =
            f.step->channels_last ? from[pixel * out.channels + c + k] : from[(c + k) * out.pixels() + pixel];
      }
      finish(place, c, v);
    }
  }
}

inline void run_image(const Frame& f, const Cut&, std::int64_t task, float*) {
  const int y = static_cast<int>(task);
  const Finish finish(f);
  const Picture& out = finish.out;
  const float* from = f.image + static_cast<std::int64_t>(y) * out.width;
  for (int x = 0; x < out.width; ++x) {
    const Place place = finish.place(y, x);
    for (int c = 0; c < finish.lines; c += kRun) {
      Run v{};
      for (int k = 0; k < std::min(kRun, out.channels - c); ++k) v[k] = from[(c + k) * out.pixels() + x];
      finish(place, c, v);
    }
  }
}

inline void run_max_pool(const Frame& f, const Cut&, std::int64_t task, float*) {
  const int y = static_cast<int>(task);
  const Finish finish(f);
  const Picture& in = f.in();
  const float* const data = f.data(in);
  const int y0 = 2 * y, y1 = std::min(y0 + 1, in.height - 1);
  for (int x = 0; x < finish.out.width; ++x) {
    const int x0 = 2 * x, x1 = std::min(x0 + 1, in.width - 1);
    const float* p[4] = {pixel_or_zeros(f, in, data, y0, x0), pixel_or_zeros(f, in, data, y0, x1),
                         pixel_or_zeros(f, in, data, y1, x0), pixel_or_zeros(f, in, data, y1, x1)};
    const Place place = finish.place(y, x);
    for (int c = 0; c < finish.lines; c += kRun) {
      finish(place, c,
             larger(larger(load(p[0] + c), load(p[1] + c)), larger(load(p[2] + c), load(p[3] + c))));
    }
  }
}

// Bilinear, edges repeated: torch's interpolate(mode="bilinear").
struct Between {
  int low, high;
  float weight;  // of `high`
  Between(int at, int from, int to, bool align_corners) {
    const float source = align_corners ? (to > 1 ? at * (static_cast<float>(from - 1) / (to - 1)) : 0.0f)
                                       : std::max((at + 0.5f) * (static_cast<float>(from) / to) - 0.5f, 0.0f);
    low = std::min(static_cast<int>(source), from - 1);
    high = std::min(low + 1, from - 1);
    weight = source - low;
  }
};

inline void run_resize(const Frame& f, const Cut&, std::int64_t task, float*) {
  const int y = static_cast<int>(task);
  const Finish finish(f);
  const Picture& in = f.in();
  const float* const data = f.data(in);
  const bool align = f.step->align_corners;
  const Between vertical(y, in.height, finish.out.height, align);
  const Run down = all(vertical.weight), up = all(1 - vertical.weight);
  for (int x = 0; x < finish.out.width; ++x) {
    const Between across(x, in.width, finish.out.width, align);
    const Run right = all(across.weight), left = all(1 - across.weight);
    const float* const p00 = pixel_or_zeros(f, in, data, vertical.low, across.low);
    const float* const p01 = pixel_or_zeros(f, in, data, vertical.low, across.high);
    const float* const p10 = pixel_or_zeros(f, in, data, vertical.high, across.low);
    const float* const p11 = pixel_or_zeros(f, in, data, vertical.high, across.high);
    const Place place = finish.place(y, x);
    for (int c = 0; c < finish.lines; c += kRun) {
      finish(place, c,
             up * (left * load(p00 + c) + right * load(p01 + c)) +
                 down * (left * load(p10 + c) + right * load(p11 + c)));
    }
  }
}

inline void run_pointwise(const Frame& f, const Cut&, std::int64_t task, float*) {
  const int y = static_cast<int>(task);
  const Finish finish(f);
  const Picture& in = f.in();
  const float* const data = f.data(in);
  for (int x = 0; x < finish.out.width; ++x) {
    const float* from = pixel_or_zeros(f, in, data, y, x);
    const Place place = finish.place(y, x);
    for (int c = 0; c < finish.lines; c += kRun) {
      Run v = load(from + c);
      if (f.before.scale != nullptr) v *= load(f.before.scale + c);
      if (f.before.shift != nullptr) v += load(f.before.shift + c);
      finish(place, c, activate(f.step->before.act, v));
    }
  }
}

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace deep
}  // namespace cgnrt
