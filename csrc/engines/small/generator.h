// The engine of small image generators: a linear layer, then up-sampling convolutions. One thread makes a
// whole image, from noise to pixels, with the activations in the second-level cache; threads never wait for
// each other between layers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/cpu.h"
#include "engines/floats.h"

namespace cgnrt {
namespace small {

// Images that go through the linear layer together, so that its weights are read once for all of them.
constexpr int kGroup = 6;

struct PictureShape {
  int channels = 0;
  int height = 0;
  int width = 0;
  std::int64_t pixels() const { return static_cast<std::int64_t>(height) * width; }
  std::int64_t count() const { return channels * pixels(); }
  // With a border of `pad` pixels around every channel.
  std::int64_t padded(int pad) const {
    return static_cast<std::int64_t>(channels) * (height + 2 * pad) * (width + 2 * pad);
  }
};

enum class LayerKind {
  kUpConv,  // nearest x2 up-sampling and a 3x3 convolution, given as a 4x4 transposed convolution of stride 2
  kConv3,   // 3x3 convolution, padding 1; both pad with zeros, or with the opposite side (`wrap`)
  kInstanceNorm,  // in place, as are the following
  kLeakyRelu,
  kTanh,
  kClip,
};

struct Layer {
  LayerKind kind = LayerKind::kTanh;
  PictureShape in;
  PictureShape out;
  std::vector<float> weight;  // up-conv: (in, out, 4, 4); conv: (out, in, 3, 3); instance norm: scale (in)
  std::vector<float> bias;    // (out)
  float slope = 1;            // of the leaky ReLU after a convolution, or of kLeakyRelu; 1: none
  float epsilon = 0;
  float low = 0;
  float high = 0;
  bool wrap = false;  // a convolution's border: the opposite side of the picture, not zeros
  int out_pad = 0;    // border around this layer's output, which the next convolution reads
  Floats packed;      // the weight as the kernel of this instruction set reads it
};

struct SmallGenerator {
  std::vector<int> input_widths;     // of the inputs, in the order in which they are concatenated
  int inputs = 0;                    // their sum
  std::vector<float> linear_weight;  // (first.count(), inputs)
  std::vector<float> linear_bias;    // (first.count())
  Floats linear_packed;
  PictureShape first;
  int first_pad = 0;
  std::vector<Layer> layers;
  PictureShape last;
  Isa isa = Isa::kBaseline;
};

// Completes shapes and paddings, checks that every size fits its neighbours and the kernels, and packs the
// weights. Throws std::invalid_argument that names the layer.
void prepare(SmallGenerator& generator, const char* isa);

// Runs n images. inputs[k] is (n, input_widths[k]); out is (n, last). threads 0 is every CPU of the process.
void run(const SmallGenerator& generator, const std::vector<const float*>& inputs, std::int64_t n, float* out,
         int threads);

// The engine's loops.
struct SmallKernel {
  int tile;  // positions of a matrix tile: every layer's pixels are a multiple of it
  void (*pack)(SmallGenerator& generator);
  // Working memory of run_group, in floats.
  std::size_t (*scratch)(const SmallGenerator& generator);
  // Images first..first+count-1, count <= kGroup.
  void (*run_group)(const SmallGenerator& generator, const std::vector<const float*>& inputs,
                    std::int64_t first, int count, float* out, float* scratch);
};

CGNRT_DECLARE_VARIANTS(SmallKernel, kSmall)

}  // namespace small
}  // namespace cgnrt
