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

void fill_panels(const View& in, std::int64_t position, float* panels) {
  const std::int64_t step = static_cast<std::int64_t>(in.shape.channels) * kTile;
  const std::int64_t stride = in.stride();
  for (int s = 0; s < kTile; s += kRun) {
    const int y = static_cast<int>((position + s) / in.shape.width);
    const int x = static_cast<int>((position + s) % in.shape.width);
    for (int c = 0; c < in.shape.channels; ++c) {
      const float* row = in.row(c, y) + x;
      float* to = panels + static_cast<std::int64_t>(c) * kTile + s;
      const Run here = load(row);
      const Run up = load(row - stride);
      const Run down = load(row + stride);
      const Run left = load(row - 1) - here;
      const Run right = here - load(row + 1);
      store(to + kPlain * step, here);
      store(to + kUp * step, up - here);
      store(to + kDown * step, here - down);
      store(to + kLeft * step, left);
      store(to + kRight * step, right);
      store(to + kUpLeft * step, (load(row - stride - 1) - up) - left);
      store(to + kUpRight * step, (up - load(row - stride + 1)) - right);
      store(to + kDownLeft * step, left - (load(row + stride - 1) - down));
      store(to + kDownRight * step, right - (down - load(row + stride + 1)));
    }
  }
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define CGNRT_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#if !defined(CGNRT_SHUFFLE)
#define CGNRT_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, RunBits{__VA_ARGS__})
#endif

inline void store_interleaved(float* to, Run even, Run odd) {
  store(to, CGNRT_SHUFFLE(even, odd, 0, 8, 1, 9, 2, 10, 3, 11));
  store(to + kRun, CGNRT_SHUFFLE(even, odd, 4, 12, 5, 13, 6, 14, 7, 15));
}

void up_conv(const Layer& layer, const View& in, const View& out, float* scratch) {
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
    fill_panels(in, position, panels);
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
        const Run bias = all(layer.bias[m]);
        for (int s = 0; s < kTile; s += kRun) {
          const int y = static_cast<int>((position + s) / layer.in.width);
          const int x = static_cast<int>((position + s) % layer.in.width);
          const std::int64_t at = static_cast<std::int64_t>(m) * kTile + s;
          const Run shared = load(vertical[a] + at) + bias;
          store_interleaved(out.row(m, 2 * y + a) + 2 * x,
                            leaky(shared + load(diagonal[0] + at), layer.slope),
                            leaky(shared + load(diagonal[1] + at), layer.slope));
        }
      }
    }
  }
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

// `Channels` output channels of `Runs` runs of a row at a time.
template <int Channels, int Runs>
void conv3_block(const Layer& layer, const View& in, const View& out, int channel, const float* weight) {
  for (int y = 0; y < layer.in.height; ++y) {
    for (int x = 0; x < layer.in.width; x += Runs * kRun) {
      Run sum[Channels][Runs];
#pragma GCC unroll 4
      for (int m = 0; m < Channels; ++m) {
#pragma GCC unroll 4
        for (int r = 0; r < Runs; ++r) sum[m][r] = all(layer.bias[channel + m]);
      }
      const float* factor = weight;
      for (int c = 0; c < layer.in.channels; ++c) {
#pragma GCC unroll 3
        for (int dy = -1; dy <= 1; ++dy) {
          const float* row = in.row(c, y + dy) + x;
#pragma GCC unroll 3
          for (int dx = -1; dx <= 1; ++dx, factor += Channels) {
#pragma GCC unroll 4
            for (int r = 0; r < Runs; ++r) {
              const Run pixels = load(row + r * kRun + dx);
#pragma GCC unroll 4
              for (int m = 0; m < Channels; ++m) sum[m][r] += all(factor[m]) * pixels;
            }
          }
        }
      }
#pragma GCC unroll 4
      for (int m = 0; m < Channels; ++m) {
#pragma GCC unroll 4
        for (int r = 0; r < Runs; ++r) {
          store(out.row(channel + m, y) + x + r * kRun, leaky(sum[m][r], layer.slope));
        }
      }
    }
  }
}

template <int Channels>
void conv3_rows(const Layer& layer, const View& in, const View& out, int channel, const float* weight) {
  if (layer.in.width % (4 * kRun) == 0) return conv3_block<Channels, 4>(layer, in, out, channel, weight);
  if (layer.in.width % (2 * kRun) == 0) return conv3_block<Channels, 2>(layer, in, out, channel, weight);
  conv3_block<Channels, 1>(layer, in, out, channel, weight);
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
