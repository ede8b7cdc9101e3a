// compose: blend foregrounds over backgrounds through soft masks (Eq. 2 of the paper) into the form that the
// consumer wants.
//
// Python calls compose(). compose_validate.cc checks a call on every device. On the CPU compose_cpu.cc checks
// the values of index and rolls too, and runs either compose_ref, which is the specification, or the loops of
// compose_kernel.cc on several threads. On a GPU compose() is in cuda/compose.cu.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/cpu.h"
#include "common/tensor.h"
#include "ops/pixels.h"

namespace cgnrt {

// Whether the CPU writes the batch around the cache: faster for a batch that the cache does not hold.
enum class Streaming { kBySize, kNever, kAlways };

// A call as Python makes it. Not checked yet.
struct ComposeCall {
  Target target;
  Tensor masks;                 // (M, 1, h, w) float32 or float16
  Tensor foregrounds;           // (F, c, h, w), same dtype
  Tensor backgrounds;           // (B, c, h, w), same dtype
  std::optional<Tensor> index;  // (n, 3) int32 or int64; absent: in order
  std::optional<Tensor> rolls;  // (n, 2, 2) int32 or int64; absent: none
  PixelForm form;
  Streaming streaming = Streaming::kBySize;  // for tests and the benchmark
  std::vector<std::int64_t> shape;           // of the batch; check_compose sets it
};

// Checks the shapes and dtypes of the inputs and sets the call's shape. Throws std::invalid_argument.
void check_compose(ComposeCall& call);

// Checks where the batch is written to. Throws std::invalid_argument.
void require_compose_out(const ComposeCall& call, const Tensor& out);

// Checks the rest of a call that check_compose accepted, and runs it. Throws std::invalid_argument before
// anything is written. On a GPU it enqueues the work and does not wait; an index that does not exist gives
// NaN there, and 0 as uint8.
void compose(const ComposeCall& call, const Tensor& out);

// Where one sample of the batch comes from. A roll moves a texture on the torus:
// rolled[y, x] = texture[(y - dy) mod height, (x - dx) mod width], with 0 <= dy < height and 0 <= dx < width.
struct ComposeItem {
  std::int32_t mask;
  std::int32_t foreground;
  std::int32_t background;
  std::int32_t foreground_dy;
  std::int32_t foreground_dx;
  std::int32_t background_dy;
  std::int32_t background_dx;
};

// A checked call: the variants on the CPU trust it.
struct ComposeArgs : PixelFinish {
  const void* masks;         // (M, 1, height, width), `input`
  const void* foregrounds;   // (F, channels, height, width), `input`
  const void* backgrounds;   // (B, channels, height, width), `input`
  const ComposeItem* items;  // (n), indices within M, F, B
  void* out;                 // (n, channels, height, width) or (n, height, width, channels), `output`
  std::int64_t n;
  std::int64_t channels;
  std::int64_t height;
  std::int64_t width;
  DType input;  // kFloat32 or kFloat16
  Streaming streaming;
};

void compose_ref(const ComposeArgs& args);

// A block is the unit of work, small enough for the first-level cache with all its channels: as many whole
// rows of one sample as have this many pixels, or a part of a longer row.
constexpr std::int64_t kBlockPixels = 1024;

CGNRT_HD std::int64_t blocks_per_sample(const ComposeArgs& a) {
  if (a.width > kBlockPixels) return a.height * ((a.width + kBlockPixels - 1) / kBlockPixels);
  const std::int64_t rows = kBlockPixels / a.width;
  return (a.height + rows - 1) / rows;
}

struct ComposeKernel {
  // Composes blocks first..last-1 of the n * blocks_per_sample(args) blocks.
  void (*blocks)(const ComposeArgs& args, std::int64_t first, std::int64_t last);
};

CGNRT_DECLARE_VARIANTS(ComposeKernel, kCompose)

}  // namespace cgnrt
