// Compiled once for every instruction set, with CGNRT_ISA naming the namespace, and with contraction to FMA:
// engines agree to a tolerance, unlike the ops. Only kSmall may have external linkage here, and every
// function of a header must be inlined: else the linker keeps one copy of it for all instruction sets.
#include <algorithm>
#include <cstring>

#include "engines/small/generator.h"
#include "engines/small/layers.h"
#include "engines/small/tile.h"

namespace cgnrt {
namespace small {
namespace CGNRT_ISA {
namespace {

// The linear layer of a whole group, into `count` pictures with borders, one behind the other.
void linear(const SmallGenerator& net, const std::vector<const float*>& inputs, std::int64_t first, int count,
            float* pictures, float* scratch) {
  float* const vectors = scratch;  // [input][image]
  float* const sums = scratch + static_cast<std::int64_t>(net.inputs) * kGroup;
  int k = 0;
  for (std::size_t source = 0; source < inputs.size(); ++source) {
    const int width = net.input_widths[source];
    for (int j = 0; j < width; ++j, ++k) {
      for (int m = 0; m < count; ++m) vectors[k * count + m] = inputs[source][(first + m) * width + j];
    }
  }
  const std::int64_t picture = net.first.padded(net.first_pad);
  for (int m = 0; m < count; ++m) clear_border({pictures + m * picture, net.first, net.first_pad});
  const float* panel = net.linear_packed.data();
  const std::int64_t pixels = net.first.pixels();
  for (std::int64_t at = 0; at < net.first.count(); at += kTile, panel += net.inputs * kTile) {
    multiply_block<false>(count, vectors, panel, net.inputs, sums, sums);
    const int channel = static_cast<int>(at / pixels);
    for (int m = 0; m < count; ++m) {
      const View view{pictures + m * picture, net.first, net.first_pad};
      for (int s = 0; s < kTile; s += kRun) {
        const int position = static_cast<int>(at % pixels) + s;
        store(view.row(channel, position / net.first.width) + position % net.first.width,
              load(sums + m * kTile + s) + load(net.linear_bias.data() + at + s));
      }
    }
  }
}

void pack(SmallGenerator& net) {
  net.linear_packed = Floats(net.linear_weight.size());
  float* to = net.linear_packed.data();
  for (std::int64_t at = 0; at < net.first.count(); at += kTile) {
    for (int k = 0; k < net.inputs; ++k) {
      for (int s = 0; s < kTile; ++s) *to++ = net.linear_weight[(at + s) * net.inputs + k];
    }
  }
  for (Layer& layer : net.layers) {
    if (layer.kind == LayerKind::kUpConv) pack_up_conv(layer);
    if (layer.kind == LayerKind::kConv3) pack_conv3(layer);
  }
}

// Where the parts of the working memory begin, in floats.
struct Workspace {
  std::int64_t pictures = 0;
  std::int64_t buffers[2] = {0, 0};
  std::int64_t kernel = 0;
  std::int64_t size = 0;
};

Workspace workspace(const SmallGenerator& net) {
  std::int64_t largest = 0;
  std::int64_t kernel = (net.inputs + kTile) * kGroup;
  for (const Layer& layer : net.layers) {
    largest = std::max(largest, layer.out.padded(layer.out_pad));
    if (layer.kind == LayerKind::kUpConv) {
      kernel = std::max<std::int64_t>(kernel, (kPanels * layer.in.channels + 7 * layer.out.channels) * kTile);
    }
  }
  const auto lines = [](std::int64_t floats) { return (floats + 15) / 16 * 16; };
  Workspace w;
  w.buffers[0] = lines(kGroup * net.first.padded(net.first_pad));
  w.buffers[1] = w.buffers[0] + lines(largest);
  w.kernel = w.buffers[1] + lines(largest);
  w.size = w.kernel + lines(kernel);
  return w;
}

void run_group(const SmallGenerator& net, const std::vector<const float*>& inputs, std::int64_t first,
               int count, float* out, float* scratch) {
  const Workspace w = workspace(net);
  linear(net, inputs, first, count, scratch + w.pictures, scratch + w.kernel);
  // The last convolution writes to the result; the layers after it work there in place.
  std::size_t last = net.layers.size();
  for (std::size_t k = 0; k < net.layers.size(); ++k) {
    if (net.layers[k].kind == LayerKind::kUpConv || net.layers[k].kind == LayerKind::kConv3) last = k;
  }
  for (int m = 0; m < count; ++m) {
    View view{scratch + w.pictures + m * net.first.padded(net.first_pad), net.first, net.first_pad};
    int next = 0;
    for (std::size_t k = 0; k < net.layers.size(); ++k) {
      const Layer& layer = net.layers[k];
      if (layer.kind != LayerKind::kUpConv && layer.kind != LayerKind::kConv3) {
        apply_in_place(layer, view);
        continue;
      }
      if (layer.wrap) wrap_border(view);
      float* const to = k == last ? out + (first + m) * net.last.count() : scratch + w.buffers[next];
      const View result{to, layer.out, layer.out_pad};
      clear_border(result);
      if (layer.kind == LayerKind::kUpConv) {
        up_conv(layer, view, result, scratch + w.kernel);
      } else {
        conv3(layer, view, result);
      }
      view = result;
      next ^= 1;
    }
    if (last == net.layers.size())
      std::memcpy(out + (first + m) * net.last.count(), view.data, net.last.count() * 4);
  }
}

std::size_t scratch_floats(const SmallGenerator& net) {
  return static_cast<std::size_t>(workspace(net).size);
}

}  // namespace

const SmallKernel kSmall = {kTile, pack, scratch_floats, run_group};

}  // namespace CGNRT_ISA
}  // namespace small
}  // namespace cgnrt
