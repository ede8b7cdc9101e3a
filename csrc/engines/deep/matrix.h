// The matrix tile, and the steps between its sums and memory. Included by deep_kernel.cc only, once
// for every instruction set.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engines/deep/kernel.h"
#include "engines/vectors.h"

namespace cgnrt {
namespace deep {
namespace CGNRT_ISA {
namespace {

using namespace cgnrt::CGNRT_ISA;

// A tile's rows are pixels, its vectors of output channels.
constexpr int kMostTaps = 9;

inline int panels_of(int channels) { return (channels + kTile - 1) / kTile; }

// c[m] = sum over taps t and k < depth of a[t * kRows + m][k] * b[t * depth + k], rows of kTile channels.
// Never inlined: a caller's constants would take registers from the sums, and one sum in memory halves the
// speed.
template <int Rows>
__attribute__((noinline)) void multiply(const float* const* a, int taps, int depth, const float* b,
                                        float* c) {
  Wide sum[Rows][2] = {};
  for (int t = 0; t < taps; ++t) {
    const float* row[Rows];
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) row[m] = a[t * kRows + m];
#pragma GCC unroll 4
    for (int k = 0; k < depth; ++k) {
      const Wide b0 = load_wide(b);
      const Wide b1 = load_wide(b + kWide);
      b += kTile;
#pragma GCC unroll 8
      for (int m = 0; m < Rows; ++m) {
        const Wide factor = spread(row[m][k]);
        sum[m][0] += factor * b0;
        sum[m][1] += factor * b1;
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < Rows; ++m) {
    store_wide(c + m * kTile, sum[m][0]);
    store_wide(c + m * kTile + kWide, sum[m][1]);
  }
}

inline void multiply_rows(int rows, const float* const* a, int taps, int depth, const float* b, float* c) {
  switch (rows) {
    case 6:
      return multiply<6>(a, taps, depth, b, c);
    case 5:
      return multiply<5>(a, taps, depth, b, c);
    case 4:
      return multiply<4>(a, taps, depth, b, c);
    case 3:
      return multiply<3>(a, taps, depth, b, c);
    case 2:
      return multiply<2>(a, taps, depth, b, c);
    default:
      return multiply<1>(a, taps, depth, b, c);
  }
}

inline Run activate(const Act& act, Run v) {
  switch (act.kind) {
    case Activation::kNone:
      return v;
    case Activation::kLeakyRelu:
      return act.low == 0 ? larger(v, Run{}) : leaky(v, act.low);
    case Activation::kTanh:
      return hyperbolic_tangent(v);
    case Activation::kSigmoid:
      return logistic(v);
    default:
      return smaller(larger(v, all(act.low)), all(act.high));
  }
}

// Where a pixel's result is written, and the residual that is added; pointers to the first channel.
struct Place {
  float* out;
  const float* residual;
};

// The steps between a sum and memory. `rows` does them for pixels of a matrix tile; most steps need few of
// them, so the loop is compiled for each combination.
struct Finish {
  const Frame& frame;
  const Step& step;
  Picture out;
  Picture residual;
  float* out_data;
  const float* residual_data = nullptr;
  const float* shift;
  int lines;
  void (*rows)(const Finish& f, const Place* places, int count, const float* sums, int channel, int lines);

  explicit Finish(const Frame& f);

  Place place(int y, int x) const {
    Place p{out_data + (static_cast<std::int64_t>(y) * out.width + x) * out.stride, nullptr};
    if (residual_data != nullptr) {
      const int half = step.residual_up ? 1 : 0;
      const std::int64_t pixel = static_cast<std::int64_t>(y >> half) * residual.width + (x >> half);
      p.residual = residual_data + pixel * residual.stride;
    }
    return p;
  }

  Run last(int channel, Run v) const {
    if (frame.last.scale != nullptr) v *= load(frame.last.scale + channel);
    if (frame.last.shift != nullptr) v += load(frame.last.shift + channel);
    return activate(step.last.act, v);
  }

  // One vector of one pixel.
  void operator()(const Place& p, int channel, Run v) const {
    if (frame.after.scale != nullptr) v *= load(frame.after.scale + channel);
    v = activate(step.after.act, v + load(shift + channel));
    if (p.residual != nullptr) v += load(p.residual + channel);
    store(p.out + channel, last(channel, v));
  }
};

enum class Nonlinear { kNone, kRelu, kAny };

template <bool Scale, bool Residual, bool Last, Nonlinear Act>
__attribute__((noinline)) void finish_rows(const Finish& f, const Place* places, int count, const float* sums,
                                           int channel, int lines) {
  const float* const scale = f.frame.after.scale;
  const float* const shift = f.shift;
  for (int c = 0; c < lines; c += kRun) {
    const int at = channel + c;
    const Run factor = Scale ? load(scale + at) : Run{};
    const Run offset = load(shift + at);
    for (int m = 0; m < count; ++m) {
      const Run sum = load(sums + m * kTile + c);
      Run v = Scale ? sum * factor + offset : sum + offset;
      if (Act == Nonlinear::kRelu) v = larger(v, Run{});
      if (Act == Nonlinear::kAny) v = activate(f.step.after.act, v);
      if (Residual) v += load(places[m].residual + at);
      if (Last) v = f.last(at, v);
      store(places[m].out + at, v);
    }
  }
}

template <bool Scale, bool Residual, bool Last>
auto choose_finish(Nonlinear act) {
  return act == Nonlinear::kNone   ? finish_rows<Scale, Residual, Last, Nonlinear::kNone>
         : act == Nonlinear::kRelu ? finish_rows<Scale, Residual, Last, Nonlinear::kRelu>
                                   : finish_rows<Scale, Residual, Last, Nonlinear::kAny>;
}

template <bool Scale>
auto choose_finish(bool residual, bool last, Nonlinear act) {
  if (residual) return last ? choose_finish<Scale, true, true>(act) : choose_finish<Scale, true, false>(act);
  return last ? choose_finish<Scale, false, true>(act) : choose_finish<Scale, false, false>(act);
}

inline Finish::Finish(const Frame& f)
    : frame(f), step(*f.step), out(f.out()), out_data(f.data(out)), lines(whole_lines(out.channels)) {
  if (step.residual >= 0) {
    residual = f.network->pictures[step.residual];
    residual_data = f.data(residual);
  }
  shift = f.after.shift != nullptr ? f.after.shift : f.zeros;
  const Act& act = step.after.act;
  const Nonlinear kind = act.kind == Activation::kNone                        ? Nonlinear::kNone
                         : act.kind == Activation::kLeakyRelu && act.low == 0 ? Nonlinear::kRelu
                                                                              : Nonlinear::kAny;
  const bool has_residual = residual_data != nullptr, has_last = !step.last.idle();
  rows = f.after.scale != nullptr ? choose_finish<true>(has_residual, has_last, kind)
                                  : choose_finish<false>(has_residual, has_last, kind);
}

struct PixelAt {
  int y, x;
};

inline PixelAt pixel_at(std::int64_t at, int width) {
  return {static_cast<int>(at / width), static_cast<int>(at % width)};
}

// Pixel (y, x), or zeros outside.
inline const float* pixel_or_zeros(const Frame& f, const Picture& p, const float* data, int y, int x) {
  if (y < 0 || x < 0 || y >= p.height || x >= p.width) return f.zeros;
  return data + (static_cast<std::int64_t>(y) * p.width + x) * p.stride;
}

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace deep
}  // namespace cgnrt
