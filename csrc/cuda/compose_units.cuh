// A unit of compose: the pixels that a thread reads, blends and finishes at once (compose.cu).
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/compose.cuh"
#include "cuda/pixel_vectors.cuh"

namespace cgnrt {
namespace {

// How a sample is divided.
struct Division {
  std::int64_t units;     // of a plane
  std::int64_t segments;  // of a plane
  std::int64_t columns;   // units of a row
  int rounds;
  std::uint32_t step_rows;  // from a unit to the one 32 further on
  std::uint32_t step_columns;
  std::int64_t channel_stride;  // of the result, in values; of single pixels
  std::int64_t pixel_stride;
};

// A plane whose dtype is known only when it is read.
struct MixedPlane {
  const char* data;
  DType dtype;
};

__device__ __forceinline__ MixedPlane operator+(MixedPlane plane, std::int64_t values) {
  return {plane.data + values * static_cast<std::int64_t>(size_of(plane.dtype)), plane.dtype};
}

// One kernel's form. `pixels` make a unit, `channels` are read at once; `interleaves`: NHWC of all channels.
// `mixed`: each pool has a dtype of its own, and `in` is the float32 that they become.
template <DType in, DType out, int pixels, int channels, bool rolls, bool interleaves, bool mixed = false>
struct Form {
  using Plane = std::conditional_t<mixed, MixedPlane, const Stored<in>*>;
  using Out = Stored<out>;
  static constexpr DType kIn = in;
  static constexpr DType kOut = out;
  static constexpr int kPixels = pixels;
  static constexpr int kChannels = channels;
  static constexpr bool kRolls = rolls;
  static constexpr bool kInterleaves = interleaves;
  static constexpr bool kMixed = mixed;
  static constexpr int kWords = kWordsOf<in, pixels>;
  static constexpr int kLoaded = rolls ? 2 * kWords : kWords;
  static constexpr int kValues = kWords * kPerWord<in>;
  static constexpr int kStored = interleaves ? channels * kWordsOf<out, pixels> : kWordsOf<out, pixels>;
};

// Where a thread's unit lies in the textures of its sample: offsets of values.
struct Places {
  std::int64_t first;
  std::int64_t second;  // the unit that follows on the torus
};

__device__ __forceinline__ Places places_of(const ComposeDeviceArgs& a, const Division& d,
                                            const ComposeShift& shift, std::uint32_t row,
                                            std::uint32_t column, int pixels) {
  row += shift.rows;
  if (row >= a.height) row -= static_cast<std::uint32_t>(a.height);
  column += shift.columns;
  const auto columns = static_cast<std::uint32_t>(d.columns);
  if (column >= columns) column -= columns;
  const std::uint32_t next = column + 1 == columns ? 0 : column + 1;
  const std::int64_t start = static_cast<std::int64_t>(row) * a.width;
  return {start + static_cast<std::int64_t>(column) * pixels,
          start + static_cast<std::int64_t>(next) * pixels};
}

template <int pixels>
__device__ __forceinline__ void bytes_to_values(float* values, const ByteValues& bytes) {
#pragma unroll
  for (int p = 0; p < pixels; ++p) values[p] = value_of(values[p], bytes);
}

// A unit of a narrower dtype as words of float32.
template <DType dtype, int pixels>
__device__ __forceinline__ void load_widened(std::uint32_t* words, const char* from,
                                             const ByteValues& bytes) {
  constexpr int narrow_words = kWordsOf<dtype, pixels>;
  std::uint32_t given[narrow_words];
  float values[narrow_words * kPerWord<dtype>];
  load_words<dtype, pixels>(given, reinterpret_cast<const Stored<dtype>*>(from));
  unpack_words<dtype, pixels>(given, values);
  if constexpr (dtype == DType::kUInt8) bytes_to_values<pixels>(values, bytes);
#pragma unroll
  for (int p = 0; p < pixels; ++p) words[p] = bits_of(values[p]);
}

// A unit as it lies in memory, or of mixed pools as float32.
template <typename F>
__device__ __forceinline__ void load_unit(std::uint32_t* words, const typename F::Plane& from,
                                          const ByteValues& bytes) {
  if constexpr (!F::kMixed) {
    load_words<F::kIn, F::kPixels>(words, from);
  } else if (from.dtype == DType::kUInt8) {
    load_widened<DType::kUInt8, F::kPixels>(words, from.data, bytes);
  } else if (from.dtype == DType::kFloat16) {
    load_widened<DType::kFloat16, F::kPixels>(words, from.data, bytes);
  } else {
    load_words<F::kIn, F::kPixels>(words, reinterpret_cast<const float*>(from.data));
  }
}

template <typename F>
__device__ __forceinline__ void unit_values(const std::uint32_t* words, const ByteValues& bytes,
                                            float* values) {
  unpack_words<F::kIn, F::kPixels>(words, values);
  if constexpr (F::kIn == DType::kUInt8) bytes_to_values<F::kPixels>(values, bytes);
}

template <typename F>
__device__ __forceinline__ void load_texture(std::uint32_t* words, const typename F::Plane& plane,
                                             const Places& places) {
  load_unit<F>(words, plane + places.first, picture_bytes());
  if constexpr (F::kRolls && F::kPixels > 1) {
    load_unit<F>(words + F::kWords, plane + places.second, picture_bytes());
  }
}

template <typename F>
__device__ __forceinline__ void texture_values(std::uint32_t* words, int skip, float* values) {
  if constexpr (F::kRolls && F::kPixels > 1) drop_values<F::kIn, F::kPixels>(words, skip);
  unit_values<F>(words, picture_bytes(), values);
}

// Everything after the blend but the cast.
template <typename F>
__device__ __forceinline__ void finish(const ComposeDeviceArgs& a, int channel,
                                       float (&values)[F::kChannels][F::kValues]) {
  if (a.clamp) {
#pragma unroll
    for (int c = 0; c < F::kChannels; ++c) {
#pragma unroll
      for (int p = 0; p < F::kPixels; ++p) values[c][p] = clamp_to(values[c][p], a.clamp_low, a.clamp_high);
    }
  }
  if (a.has_scale) {
#pragma unroll
    for (int c = 0; c < F::kChannels; ++c) {
#pragma unroll
      for (int p = 0; p < F::kPixels; ++p) values[c][p] = values[c][p] * a.scale[channel + c];
    }
  }
  if (a.has_bias) {
#pragma unroll
    for (int c = 0; c < F::kChannels; ++c) {
#pragma unroll
      for (int p = 0; p < F::kPixels; ++p) values[c][p] = values[c][p] + a.bias[channel + c];
    }
  }
}

// The planes of one sample's entries, and its place in the result.
template <typename F>
struct Sources {
  typename F::Plane mask;
  typename F::Plane foreground;
  typename F::Plane background;
  typename F::Out* out;
};

// The first plane of a pool.
template <typename F>
__device__ __forceinline__ typename F::Plane plane_of(const ComposePool& pool) {
  if constexpr (F::kMixed) {
    return {static_cast<const char*>(pool.data), pool.dtype};
  } else {
    return static_cast<typename F::Plane>(pool.data);
  }
}

// Channels `channel`.. of one unit, blended. All loads come first, with the mask's: the warp waits once for
// all of them.
template <typename F>
__device__ __forceinline__ void compose_unit(const ComposeDeviceArgs& a, const ComposeDeviceItem& item,
                                             const Sources<F>& from, const std::uint32_t* mask_words,
                                             int channel, const Places& foreground_at,
                                             const Places& background_at,
                                             float (&values)[F::kChannels][F::kValues]) {
  const std::int64_t plane = a.height * a.width;
  std::uint32_t foreground[F::kChannels][F::kLoaded], background[F::kChannels][F::kLoaded];
#pragma unroll
  for (int c = 0; c < F::kChannels; ++c) {
    load_texture<F>(foreground[c], from.foreground + (channel + c) * plane, foreground_at);
    load_texture<F>(background[c], from.background + (channel + c) * plane, background_at);
  }
  float mask[F::kValues];
  unit_values<F>(mask_words, mask_bytes(), mask);
#pragma unroll
  for (int c = 0; c < F::kChannels; ++c) {
    float covered[F::kValues], uncovered[F::kValues];
    texture_values<F>(foreground[c], item.foreground_shift.skip, covered);
    texture_values<F>(background[c], item.background_shift.skip, uncovered);
#pragma unroll
    for (int p = 0; p < F::kPixels; ++p) values[c][p] = blend(mask[p], covered[p], uncovered[p]);
  }
}

template <typename F>
__device__ __forceinline__ void fill(float value, float (&values)[F::kChannels][F::kValues]) {
#pragma unroll
  for (int c = 0; c < F::kChannels; ++c) {
#pragma unroll
    for (int p = 0; p < F::kPixels; ++p) values[c][p] = value;
  }
}

}  // namespace
}  // namespace cgnrt
