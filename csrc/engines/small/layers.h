// The layers of a network, one picture at a time. Included by small_kernel.cc only, once for every
// instruction set.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "engines/small/generator.h"
#include "engines/small/tile.h"
#include "engines/up_conv.h"

namespace cgnrt {
namespace small {
namespace CGNRT_ISA {
namespace {

// The nine inputs of an up-sampling convolution ("panels"; engines/up_conv.h). Each is the pixel itself or
// its difference from its neighbours in these directions.
enum Panel { kPlain, kUp, kDown, kLeft, kRight, kUpLeft, kUpRight, kDownLeft, kDownRight, kPanels };

// By vectors of one row each.
template <typename Vector>
void fill_panels(const View& in, std::int64_t position, float* panels) {
  const std::int64_t step = static_cast<std::int64_t>(in.shape.channels) * kTile;
  const std::int64_t stride = in.stride();
  for (int s = 0; s < kTile; s += kLanes<Vector>) {
    const int y = static_cast<int>((position + s) / in.shape.width);
    const int x = static_cast<int>((position + s) % in.shape.width);
    for (int c = 0; c < in.shape.channels; ++c) {
      const float* row = in.row(c, y) + x;
      float* to = panels + static_cast<std::int64_t>(c) * kTile + s;
      const auto at = [row](std::int64_t offset) { return load_as<Vector>(row + offset); };
      const auto put = [to, step](Panel panel, Vector v) { store_as(to + panel * step, v); };
      const Vector here = at(0);
      const Vector up = at(-stride);
      const Vector down = at(stride);
      const Vector left = at(-1) - here;
      const Vector right = here - at(1);
      put(kPlain, here);
      put(kUp, up - here);
      put(kDown, here - down);
      put(kLeft, left);
      put(kRight, right);
      put(kUpLeft, (at(-stride - 1) - up) - left);
      put(kUpRight, (up - at(-stride + 1)) - right);
      put(kDownLeft, left - (at(stride - 1) - down));
      put(kDownRight, right - (down - at(stride + 1)));
    }
  }
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define CGNRT_SHUFFLE(Bits, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#if !defined(CGNRT_SHUFFLE)
#define CGNRT_SHUFFLE(Bits, a, b, ...) __builtin_shuffle(a, b, Bits{__VA_ARGS__})
#endif

inline void store_interleaved(float* to, Run even, Run odd) {
  store(to, CGNRT_SHUFFLE(RunBits, even, odd, 0, 8, 1, 9, 2, 10, 3, 11));
  store(to + kRun, CGNRT_SHUFFLE(RunBits, even, odd, 4, 12, 5, 13, 6, 14, 7, 15));
}

#if defined(__AVX512F__)
inline void store_interleaved(float* to, Wide even, Wide odd) {
  store_wide(to, CGNRT_SHUFFLE(WideBits, even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
  store_wide(to + kWide, CGNRT_SHUFFLE(WideBits, even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14,
                                       30, 15, 31));
}
#endif

template <typename Vector>
void up_conv_by(const Layer& layer, const View& in, const View& out, float* scratch) {
  const int depth = layer.in.channels;
  const int rows = layer.out.channels;
  const std::int64_t panel = static_cast<std::int64_t>(depth) * kTile;
  const std::int64_t sums = static_cast<std::int64_t>(rows) * kTile;
  const std::int64_t weights = static_cast<std::int64_t>(rows) * depth;
  float* const panels = scratch;
  float* const plain = panels + kPanels * panel;
  float* const vertical[2] = {plain + sums, plain + 2 * sums};  // kPlain + kUp, kPlain + kDown
  float* const horizontal[2] = {plain + 3 * sums, plain + 4 * sums};
  float* const diagonal[2] = {plain + 5 * sums, plain + 6 * sums};
  const auto weight = [&](int k) { return layer.packed.data() + k * weights; };
  for (std::int64_t position = 0; position < layer.in.pixels(); position += kTile) {
    fill_panels<Vector>(in, position, panels);
    multiply<false>(weight(kPlain), panels, depth, rows, plain, plain);
    multiply<true>(weight(kUp), panels + kUp * panel, depth, rows, plain, vertical[0]);
    multiply<true>(weight(kDown), panels + kDown * panel, depth, rows, plain, vertical[1]);
    multiply<false>(weight(kLeft), panels + kLeft * panel, depth, rows, plain, horizontal[0]);
    multiply<false>(weight(kRight), panels + kRight * panel, depth, rows, plain, horizontal[1]);
    for (int a = 0; a < 2; ++a) {
      for (int b = 0; b < 2; ++b) {
        const int k = kUpLeft + 2 * a + b;
        multiply<true>(weight(k), panels + k * panel, depth, rows, horizontal[b], diagonal[b]);
      }
      for (int m = 0; m < rows; ++m) {
        for (int s = 0; s < kTile; s += kLanes<Vector>) {
          const int y = static_cast<int>((position + s) / layer.in.width);
          const int x = static_cast<int>((position + s) % layer.in.width);
          const std::int64_t at = static_cast<std::int64_t>(m) * kTile + s;
          const Vector shared = load_as<Vector>(vertical[a] + at) + layer.bias[m];
          store_interleaved(out.row(m, 2 * y + a) + 2 * x,
                            leaky(shared + load_as<Vector>(diagonal[0] + at), layer.slope),
                            leaky(shared + load_as<Vector>(diagonal[1] + at), layer.slope));
        }
      }
    }
  }
}

void up_conv(const Layer& layer, const View& in, const View& out, float* scratch) {
  if (layer.in.width % kWide == 0) return up_conv_by<Wide>(layer, in, out, scratch);
  up_conv_by<Run>(layer, in, out, scratch);
}

// The nine (out, in) matrices of the panels.
void pack_up_conv(Layer& layer) {
  const int depth = layer.in.channels;
  const int rows = layer.out.channels;
  layer.packed = Floats(static_cast<std::size_t>(kPanels) * rows * depth);
  const int vertical[kPanels] = {0, 1, 2, 0, 0, 1, 1, 2, 2};
  const int horizontal[kPanels] = {0, 0, 0, 1, 2, 1, 2, 1, 2};
  std::vector<float> matrix(static_cast<std::size_t>(rows) * depth);
  float* to = layer.packed.data();
  for (int k = 0; k < kPanels; ++k) {
    for (int m = 0; m < rows; ++m) {
      for (int c = 0; c < depth; ++c) {
        const float* taps = layer.weight.data() + (static_cast<std::size_t>(c) * rows + m) * 16;
        double sum = 0;
        for (int y = 0; y < 4; ++y) {
          for (int x = 0; x < 4; ++x)
            sum += kUpConvSums[vertical[k]][y] * kUpConvSums[horizontal[k]][x] * double(taps[4 * y + x]);
        }
        matrix[static_cast<std::size_t>(m) * depth + c] = static_cast<float>(sum);
      }
    }
    to = pack_rows(matrix, rows, depth, to);
  }
}

// `Channels` output channels of `Rows` rows at a time, of `Runs` vectors in each.
template <typename Vector, int Channels, int Rows, int Runs>
void conv3_block(const Layer& layer, const View& in, const View& out, int channel, const float* weight) {
  for (int y = 0; y < layer.in.height; y += Rows) {
    for (int x = 0; x < layer.in.width; x += Runs * kLanes<Vector>) {
      Vector sum[Channels][Rows][Runs];
#pragma GCC unroll 4
      for (int m = 0; m < Channels; ++m) {
#pragma GCC unroll 4
        for (int t = 0; t < Rows; ++t) {
#pragma GCC unroll 4
          for (int r = 0; r < Runs; ++r) sum[m][t][r] = Vector{} + layer.bias[channel + m];
        }
      }
      const float* factor = weight;
      for (int c = 0; c < layer.in.channels; ++c) {
#pragma GCC unroll 3
        for (int dy = -1; dy <= 1; ++dy) {
#pragma GCC unroll 3
          for (int dx = -1; dx <= 1; ++dx, factor += Channels) {
#pragma GCC unroll 4
            for (int t = 0; t < Rows; ++t) {
              const float* row = in.row(c, y + t + dy) + x + dx;
#pragma GCC unroll 4
              for (int r = 0; r < Runs; ++r) {
                const Vector pixels = load_as<Vector>(row + r * kLanes<Vector>);
#pragma GCC unroll 4
                for (int m = 0; m < Channels; ++m) sum[m][t][r] += factor[m] * pixels;
              }
            }
          }
        }
      }
#pragma GCC unroll 4
      for (int m = 0; m < Channels; ++m) {
#pragma GCC unroll 4
        for (int t = 0; t < Rows; ++t) {
          float* to = out.row(channel + m, y + t) + x;
#pragma GCC unroll 4
          for (int r = 0; r < Runs; ++r) {
            store_as(to + r * kLanes<Vector>, leaky(sum[m][t][r], layer.slope));
          }
        }
      }
    }
  }
}

// In blocks of as many sums as keep both multipliers busy, where the picture's size allows them.
template <int Channels>
void conv3_rows(const Layer& layer, const View& in, const View& out, int channel, const float* weight) {
  const int width = layer.in.width;
  if (kWide > kRun && width % (2 * kWide) == 0 && layer.in.height % 2 == 0) {
    return conv3_block<Wide, Channels, 2, 2>(layer, in, out, channel, weight);
  }
  if (width % (4 * kRun) == 0) return conv3_block<Run, Channels, 1, 4>(layer, in, out, channel, weight);
  if (width % (2 * kRun) == 0) return conv3_block<Run, Channels, 1, 2>(layer, in, out, channel, weight);
  conv3_block<Run, Channels, 1, 1>(layer, in, out, channel, weight);
}

void conv3(const Layer& layer, const View& in, const View& out) {
  const float* weight = layer.packed.data();
  for (int channel = 0; channel < layer.out.channels;) {
    const int block = std::min(3, layer.out.channels - channel);
    if (block == 3) conv3_rows<3>(layer, in, out, channel, weight);
    if (block == 2) conv3_rows<2>(layer, in, out, channel, weight);
    if (block == 1) conv3_rows<1>(layer, in, out, channel, weight);
    weight += static_cast<std::int64_t>(layer.in.channels) * 9 * block;
    channel += block;
  }
}

void pack_conv3(Layer& layer) {
  layer.packed = Floats(layer.weight.size());
  float* to = layer.packed.data();
  for (int channel = 0; channel < layer.out.channels;) {
    const int block = std::min(3, layer.out.channels - channel);
    for (int k = 0; k < layer.in.channels * 9; ++k) {
      for (int m = 0; m < block; ++m) {
        *to++ = layer.weight[static_cast<std::size_t>(channel + m) * layer.in.channels * 9 + k];
      }
    }
    channel += block;
  }
}

void instance_norm(const Layer& layer, const View& v) {
  const double count = static_cast<double>(v.shape.pixels());
  for (int c = 0; c < v.shape.channels; ++c) {
    Run sum{};
    for (int y = 0; y < v.shape.height; ++y) {
      for (int x = 0; x < v.shape.width; x += kRun) sum += load(v.row(c, y) + x);
    }
    double total = 0;
    for (int k = 0; k < kRun; ++k) total += sum[k];
    const float mean = static_cast<float>(total / count);
    Run squares{};
    for (int y = 0; y < v.shape.height; ++y) {
      for (int x = 0; x < v.shape.width; x += kRun) {
        const Run centred = load(v.row(c, y) + x) - mean;
        squares += centred * centred;
      }
    }
    total = 0;
    for (int k = 0; k < kRun; ++k) total += squares[k];
    const float scale = layer.weight[c] / std::sqrt(static_cast<float>(total / count) + layer.epsilon);
    const float shift = layer.bias[c] - mean * scale;
    for (int y = 0; y < v.shape.height; ++y) {
      for (int x = 0; x < v.shape.width; x += kRun) {
        float* at = v.row(c, y) + x;
        store(at, load(at) * scale + shift);
      }
    }
  }
}

template <typename Function>
inline void each_run(const View& v, Function function) {
  for (int c = 0; c < v.shape.channels; ++c) {
    for (int y = 0; y < v.shape.height; ++y) {
      for (int x = 0; x < v.shape.width; x += kRun) {
        float* at = v.row(c, y) + x;
        store(at, function(load(at)));
      }
    }
  }
}

void apply_in_place(const Layer& layer, const View& v) {
  switch (layer.kind) {
    case LayerKind::kInstanceNorm:
      return instance_norm(layer, v);
    case LayerKind::kLeakyRelu:
      return each_run(v, [&](Run x) { return leaky(x, layer.slope); });
    case LayerKind::kTanh:
      return each_run(v, [](Run x) { return hyperbolic_tangent(x); });
    default:
      return each_run(v, [&](Run x) {
        const Run above = x < layer.low ? all(layer.low) : x;
        return above > layer.high ? all(layer.high) : above;
      });
  }
}

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace small
}  // namespace cgnrt
