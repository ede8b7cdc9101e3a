// The engine of deep picture networks (BigGAN, U-Net shapes). Pictures have their channels last. Every
// convolution is a matrix product: its input is transformed first, and its result gets scale, shift,
// activation and residual before it is written.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/cpu.h"
#include "engines/floats.h"

namespace cgnrt {
namespace deep {

// Channels of a picture in memory are a whole number of these.
constexpr int kLine = 8;
inline int whole_lines(int channels) { return (channels + kLine - 1) / kLine * kLine; }

struct Picture {
  int channels = 0;
  int height = 0;
  int width = 0;
  // Where it lies: pixel p begins at buffer + p * stride + first. Pictures that are concatenated share a
  // buffer.
  int buffer = -1;
  int first = 0;
  int stride = 0;
  std::int64_t pixels() const { return static_cast<std::int64_t>(height) * width; }
};

enum class StepKind {
  kStart,      // a vector becomes a picture
  kImage,      // an image that the caller gives becomes a picture
  kConv,       // 1x1 or 3x3, stride 1, same size, dilated or not
  kUpConv,     // nearest x2 up-sampling and a 3x3 convolution, as a 4x4 transposed convolution of stride 2
  kMaxPool,    // 2x2, stride 2, rounding up
  kResize,     // bilinear
  kAttention,  // softmax(query key^T) value, over pixels
  kPointwise,  // nothing but the epilogue
};

enum class Activation { kNone, kLeakyRelu, kTanh, kSigmoid, kClip };

struct Act {
  Activation kind = Activation::kNone;
  float low = 0;   // slope of the leaky ReLU (0 is ReLU), or lower limit
  float high = 0;  // upper limit
};

// A map x * scale[c] + shift[c], then an activation. The two are indices of the caller's vectors, (n,
// channels) each: they differ from image to image. -1 means that it has none.
struct Affine {
  int scale = -1;
  int shift = -1;
  Act act;
  bool idle() const { return scale < 0 && shift < 0 && act.kind == Activation::kNone; }
};

// How a 3x3 convolution is computed: multiply-adds per output and channel pair.
enum class Method {
  kDirect,    // 9, or 1 of a 1x1 convolution
  kGathered,  // 9: of few input channels, whose taps lie side by side
  kTile2,     // 4: Winograd F(2x2, 3x3)
  kTile4,     // 2.25: Winograd F(4x4, 3x3)
  kUp,        // 2.25: the nine products of engines/up_conv.h
  kThin,      // 9: few output channels, vectors along the input channels
};

struct Step {
  StepKind kind = StepKind::kPointwise;
  std::vector<int> in;  // pictures: one; attention: query, key, value
  int out = -1;
  int vector = -1;            // start: of the caller's vectors, (n, channels * height * width)
  bool channels_last = true;  // start: the order of that vector
  int kernel = 1;
  int dilation = 1;
  bool align_corners = false;  // resize: corner pixels lie on each other, else half-pixel centres
  // conv: (out, in, k, k); up-conv: (in, out, 4, 4). The caller's; not read again once packed.
  const float* weight = nullptr;
  std::int64_t weight_count = 0;
  std::vector<float> bias;   // (out) or empty
  Affine before;             // of the input: 1x1 convolutions and pointwise steps only
  Affine after;              // of the result
  int residual = -1;         // picture added then; of half the size where residual_up
  bool residual_up = false;  // the residual is up-sampled, nearest x2
  Affine last;               // applied then
  Method method = Method::kDirect;
  double products = 0;  // multiply-adds that the method needs for an image
  Floats packed;
};

// "3x3 direct", "3x3 F(4x4)", ...; for a step without weights, its kind.
const char* name_of_method(const Step& step);

struct PictureNetwork {
  std::vector<int> vector_widths;  // of the caller's vectors
  std::vector<Picture> pictures;
  std::vector<Step> steps;
  std::vector<int> outputs;  // pictures
  int image = -1;            // the picture that the caller's image becomes, or -1

  // Completed by `prepare`.
  std::vector<int> slots;                 // of every buffer
  std::vector<std::int64_t> slot_floats;  // of every slot of memory
  int most_channels = 0;
  Isa isa = Isa::kBaseline;
};

// Checks the network, places its pictures in memory, chooses a method for every convolution and packs the
// weights, which are not read again. Throws std::invalid_argument that names the step.
void prepare(PictureNetwork& network, const char* isa);

// Floats of working memory.
std::int64_t workspace_floats(const PictureNetwork& network);

// Runs n images. vectors[k] is (n, vector_widths[k]); image is (n, c, h, w) or null; outs[k] is (n, channels,
// height, width) of outputs[k]. threads 0 is every CPU of the process. Returns the seconds that each step
// took.
std::vector<double> run(const PictureNetwork& network, const std::vector<const float*>& vectors,
                        const float* image, std::int64_t n, const std::vector<float*>& outs, int threads);

}  // namespace deep
}  // namespace cgnrt
