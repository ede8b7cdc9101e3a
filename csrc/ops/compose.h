// compose: blend foregrounds over backgrounds through soft masks (Eq. 2 of the paper) into the consumer's
// form.
//
// One signature, several variants: compose_ref is the specification, compose_cpu the vectorised and threaded
// version. The caller (compose_validate.cc) has checked everything; the variants trust it.
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace cgnrt {

enum class Layout { kNCHW, kNHWC };

// Whether the batch is written around the cache: faster where it would not stay there.
enum class Streaming { kBySize, kNever, kAlways };

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

struct ComposeArgs {
  const void* masks;         // (M, 1, height, width), `input`
  const void* foregrounds;   // (F, channels, height, width), `input`
  const void* backgrounds;   // (B, channels, height, width), `input`
  const ComposeItem* items;  // (n), indices within M, F, B
  const float* scale;        // (channels), or null: no multiplication
  const float* bias;         // (channels), or null: no addition
  void* out;                 // (n, channels, height, width) or (n, height, width, channels), `output`
  std::int64_t n;
  std::int64_t channels;
  std::int64_t height;
  std::int64_t width;
  DType input;   // kFloat32 or kFloat16
  DType output;  // kFloat32, kFloat16, kBFloat16 or kUInt8
  Layout layout;
  bool clamp;  // clamp the blend to [clamp_low, clamp_high]
  float clamp_low;
  float clamp_high;
  int threads;  // at most this many; 0: chosen by size
  Streaming streaming;
};

void compose_ref(const ComposeArgs& args);

// `isa` is one of the names in cpu_isas() (common/cpu.h), or null for the best.
void compose_cpu(const ComposeArgs& args, const char* isa);

}  // namespace cgnrt
