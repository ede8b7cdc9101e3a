// compose on a GPU: the same signature as compose.h's but for the items, which stay on the device: what is
// wrong with one cannot be told without waiting for it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/compose.h"

namespace cgnrt {

constexpr int kMaxDeviceChannels = 16;  // scale and bias travel with the launch

struct ComposeDeviceArgs {
  const void* masks;        // (masks_count, 1, height, width), `input`
  const void* foregrounds;  // (foregrounds_count, channels, height, width), `input`
  const void* backgrounds;  // (backgrounds_count, channels, height, width), `input`
  // (n, 3) int32, or int64 if index_is_wide; null: in order. A row that names an entry that is not there
  // gives NaN, and 0 as uint8; nothing is read for it.
  const void* index;
  const void* rolls;  // (n, 2, 2) int32, or int64 if rolls_are_wide, any integers; null: none
  bool index_is_wide;
  bool rolls_are_wide;
  std::int64_t masks_count;
  std::int64_t foregrounds_count;
  std::int64_t backgrounds_count;
  bool has_scale;
  bool has_bias;
  float scale[kMaxDeviceChannels];
  float bias[kMaxDeviceChannels];
  void* out;  // (n, channels, height, width) or (n, height, width, channels), `output`
  std::int64_t n;
  std::int64_t channels;  // at most kMaxDeviceChannels
  std::int64_t height;
  std::int64_t width;
  DType input;   // kFloat32 or kFloat16
  DType output;  // kFloat32, kFloat16, kBFloat16 or kUInt8
  Layout layout;
  bool clamp;
  float clamp_low;
  float clamp_high;
};

// Enqueues on the current device and does not synchronise. The same bits as compose_ref, but for the payload
// of NaNs in half precision. Throws CudaError if the launch fails.
void compose_cuda(const ComposeDeviceArgs& args, cudaStream_t stream);

}  // namespace cgnrt
