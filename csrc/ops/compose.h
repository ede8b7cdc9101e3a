// compose: blend foregrounds over backgrounds through soft masks (Eq. 2 of the paper) into the form that the
// consumer wants.
//
// Python calls compose(). compose_validate.cc checks a call on every device. On the CPU compose_cpu.cc checks
// the values of index, rolls and place too, and runs either compose_ref, which is the specification, or the
// loops of compose_kernel.cc or, of placed objects, of compose_place_kernel.cc on several threads. On a GPU
// compose() is in cuda/compose.cu.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/cpu.h"
#include "common/tensor.h"
#include "ops/pixels.h"
#include "ops/place.h"

namespace cgnrt {

// Whether the CPU writes the batch around the cache: faster for a batch that the cache does not hold.
enum class Streaming { kBySize, kNever, kAlways };

// A call as Python makes it. Not checked yet.
struct ComposeCall {
  Target target;
  Tensor masks;                 // (M, 1, h, w) float32, float16 or uint8
  Tensor foregrounds;           // (F, c, h, w), likewise, of a dtype of its own
  Tensor backgrounds;           // (B, c, h, w), likewise
  std::optional<Tensor> index;  // (n, 3) int32 or int64; absent: in order
  std::optional<Tensor> rolls;  // (n, 2, 2) int32 or int64; absent: none
  std::optional<Tensor> place;  // (n, 4) float32, the numbers of a Place; absent: where they are
  PixelForm form;
  Streaming streaming = Streaming::kBySize;  // for tests and the benchmark
  std::vector<std::int64_t> shape;           // of the batch; check_compose sets it
};

// Checks the shapes and dtypes of the inputs and sets the call's shape. Throws std::invalid_argument.
void check_compose(ComposeCall& call);

// Checks where the batch is written to. Throws std::invalid_argument.
void require_compose_out(const ComposeCall& call, const Tensor& out);

// Checks the rest of a call that check_compose accepted, and runs it. Throws std::invalid_argument before
// anything is written. On a GPU it enqueues the work and does not wait; an index that does not exist, or
// numbers that are not a place, give NaN there, and 0 as uint8.
void compose(const ComposeCall& call, const Tensor& out);

// Moves a texture on the torus: rolled[y, x] = texture[(y - dy) mod height, (x - dx) mod width], with
// 0 <= dy < height and 0 <= dx < width.
struct Roll {
  std::int32_t dy;
  std::int32_t dx;
};

// Where one sample of the batch comes from, and all that moves its pictures.
struct ComposeItem {
  std::int32_t mask;
  std::int32_t foreground;
  std::int32_t background;
  Roll foreground_roll;
  Roll background_roll;
};

// Pictures of one kind, of which each sample takes an entry. Bytes stand for mask_bytes or picture_bytes.
struct ComposePool {
  const void* data;
  DType dtype;  // kFloat32, kFloat16 or kUInt8
};

// A checked call: the variants on the CPU trust it.
struct ComposeArgs : PixelFinish {
  ComposePool masks;         // (M, 1, height, width)
  ComposePool foregrounds;   // (F, channels, height, width)
  ComposePool backgrounds;   // (B, channels, height, width)
  const ComposeItem* items;  // (n), indices within M, F, B
  const Place* places;       // (n), or null: objects stay where they are
  void* out;                 // (n, channels, height, width) or (n, height, width, channels), `output`
  std::int64_t n;
  std::int64_t channels;
  std::int64_t height;
  std::int64_t width;
  // Of no matter to compose_ref.
  Streaming streaming;
  std::int64_t block_pixels;  // kBlockPixels or kByteBlockPixels
  std::int64_t widest_pixel;  // bytes of a pixel of the pools, the largest
};

void compose_ref(const ComposeArgs& args);

CGNRT_HD bool are_bytes(const ComposeArgs& a) {
  return a.masks.dtype == DType::kUInt8 && a.foregrounds.dtype == DType::kUInt8 &&
         a.backgrounds.dtype == DType::kUInt8;
}

// Whether floats are needed at all: bytes of pictures in [-1, 1] to bytes of the same are blended as
// integers. The exact blend is a multiple of 1/255 and so at least 1/510 from where rounding turns; the
// floats' own errors are less than 1/10,000 of a step, so that both ways give the same byte.
CGNRT_HD bool keeps_bytes(const ComposeArgs& a) {
  if (!are_bytes(a) || a.output != DType::kUInt8 || a.scale == nullptr || a.bias == nullptr) return false;
  for (std::int64_t c = 0; c < a.channels; ++c) {
    if (a.scale[c] != 127.5f || a.bias[c] != 127.5f) return false;
  }
  return !a.clamp || (a.clamp_low <= -1.0f && a.clamp_high >= 1.0f);
}

// A block is the unit of work, small enough for the first-level cache with all its channels: as many whole
// rows of one sample as have this many pixels, or a part of a longer row.
constexpr std::int64_t kBlockPixels = 1024;
// Of bytes, whose planes would else be too small to be fetched one ahead. Not where floats are interleaved,
// which would not fit.
constexpr std::int64_t kByteBlockPixels = 4 * kBlockPixels;

CGNRT_HD std::int64_t block_pixels_of(const ComposeArgs& a) {
  if (a.places != nullptr) return kBlockPixels;
  return keeps_bytes(a) || (are_bytes(a) && a.layout == Layout::kNCHW) ? kByteBlockPixels : kBlockPixels;
}

CGNRT_HD std::int64_t blocks_per_sample(const ComposeArgs& a) {
  if (a.width > a.block_pixels) return a.height * ((a.width + a.block_pixels - 1) / a.block_pixels);
  const std::int64_t rows = a.block_pixels / a.width;
  return (a.height + rows - 1) / rows;
}

struct ComposeKernel {
  // Composes blocks first..last-1 of the n * blocks_per_sample(args) blocks.
  void (*blocks)(const ComposeArgs& args, std::int64_t first, std::int64_t last);
};

CGNRT_DECLARE_VARIANTS(ComposeKernel, kCompose)

// The same where objects have places.
CGNRT_DECLARE_VARIANTS(ComposeKernel, kComposePlace)

}  // namespace cgnrt
