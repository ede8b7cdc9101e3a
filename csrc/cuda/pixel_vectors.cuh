// Pixels of one plane that lie side by side, moved as one: up to 16 bytes of one thread.
#pragma once

#include <cstdint>

#include "cuda/casts.cuh"

namespace cgnrt {

// Words that hold `pixels` values of a dtype; a single narrow value takes a whole word.
template <DType dtype, int pixels>
constexpr int kWordsOf = (pixels + kPerWord<dtype> - 1) / kPerWord<dtype>;

// The widest type, in words, that so many words divide into.
template <int words>
constexpr int kVectorWords = words % 4 == 0   ? 4
                             : words % 2 == 0 ? 2
                                              : 1;

// kWordsOf<dtype, pixels> words at an address aligned to all of them, or to the value if it is one.
template <DType dtype, int pixels>
__device__ __forceinline__ void load_words(std::uint32_t* words, const Stored<dtype>* from) {
  constexpr int count = kWordsOf<dtype, pixels>;
  if constexpr (pixels == 1 && dtype == DType::kFloat32) {
    words[0] = bits_of(__ldg(from));
  } else if constexpr (pixels == 1) {
    words[0] = __ldg(from);
  } else if constexpr (count == 4) {
    const uint4 vector = __ldg(reinterpret_cast<const uint4*>(from));
    words[0] = vector.x;
    words[1] = vector.y;
    words[2] = vector.z;
    words[3] = vector.w;
  } else if constexpr (count == 1) {
    words[0] = __ldg(reinterpret_cast<const std::uint32_t*>(from));
  } else {
    static_assert(count == 2, "4, 8 or 16 bytes");
    const uint2 vector = __ldg(reinterpret_cast<const uint2*>(from));
    words[0] = vector.x;
    words[1] = vector.y;
  }
}

// 1, 2 or 4 words past the caches.
template <int count>
__device__ __forceinline__ void stream_words(void* to, const std::uint32_t* words) {
  if constexpr (count == 4) {
    __stcs(static_cast<uint4*>(to), make_uint4(words[0], words[1], words[2], words[3]));
  } else if constexpr (count == 2) {
    __stcs(static_cast<uint2*>(to), make_uint2(words[0], words[1]));
  } else {
    static_assert(count == 1, "4, 8 or 16 bytes");
    __stcs(static_cast<std::uint32_t*>(to), words[0]);
  }
}

// Words to shared memory, as wide as they divide.
template <int count>
__device__ __forceinline__ void stage_words(std::uint32_t* to, const std::uint32_t* words) {
  constexpr int width = kVectorWords<count>;
#pragma unroll
  for (int at = 0; at < count; at += width) {
    if constexpr (width == 4) {
      *reinterpret_cast<uint4*>(to + at) = make_uint4(words[at], words[at + 1], words[at + 2], words[at + 3]);
    } else if constexpr (width == 2) {
      *reinterpret_cast<uint2*>(to + at) = make_uint2(words[at], words[at + 1]);
    } else {
      to[at] = words[at];
    }
  }
}

// Moves the values of two vectors side by side down by `skip` places, less than a vector: the first then
// holds a vector that began within it. `skip` is the same for the whole warp.
template <DType dtype, int pixels>
__device__ __forceinline__ void drop_values(std::uint32_t* words, int skip) {
  constexpr int count = kWordsOf<dtype, pixels>;
  const int whole = skip / kPerWord<dtype>;
#pragma unroll
  for (int step = count / 2; step > 0; step /= 2) {
    if ((whole & step) != 0) {
#pragma unroll
      for (int at = 0; at < 2 * count - step; ++at) words[at] = words[at + step];
    }
  }
  const int bits = skip % kPerWord<dtype> * (32 / kPerWord<dtype>);
  if (kPerWord<dtype> > 1 && bits != 0) {
#pragma unroll
    for (int at = 0; at < count; ++at) words[at] = words[at] >> bits | words[at + 1] << (32 - bits);
  }
}

// Words as floats; of a single narrow value the others are 0.
template <DType dtype, int pixels>
__device__ __forceinline__ void unpack_words(const std::uint32_t* words, float* values) {
#pragma unroll
  for (int at = 0; at < kWordsOf<dtype, pixels>; ++at) {
    unpack_word<dtype>(words[at], values + at * kPerWord<dtype>);
  }
}

template <DType dtype, int count>
__device__ __forceinline__ void pack_words(const float* values, std::uint32_t* words) {
#pragma unroll
  for (int at = 0; at < count; ++at) words[at] = pack_word<dtype>(values + at * kPerWord<dtype>);
}

}  // namespace cgnrt
