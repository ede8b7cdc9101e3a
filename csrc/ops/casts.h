// Casts of runs of floats to and from the narrow types, bit for bit those of common/convert.h. For the files
// that are compiled once for every instruction set: the rules at the top of compose_kernel.cc hold here too.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/convert.h"

// AVX2 stands for x86-64-v3, F16C with it. The baseline is plain loops on every machine, so that x86 tests
// what the others run.
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace cgnrt {

CGNRT_HD void halves_to_floats(float* __restrict to, const std::uint16_t* __restrict from,
                               std::int64_t count) {
  std::int64_t at = 0;
#if defined(__AVX2__)
  for (; at + 8 <= count; at += 8) {
    _mm256_storeu_ps(to + at, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at))));
  }
#endif
  for (; at < count; ++at) to[at] = half_to_float(from[at]);
}

CGNRT_HD void floats_to_halves(std::uint16_t* __restrict to, const float* __restrict from,
                               std::int64_t count) {
  std::int64_t at = 0;
#if defined(__AVX2__)
  for (; at + 8 <= count; at += 8) {
    const __m128i halves =
        _mm256_cvtps_ph(_mm256_loadu_ps(from + at), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + at), halves);
  }
#endif
  for (; at < count; ++at) to[at] = float_to_half(from[at]);
}

#if defined(__AVX2__)

// Floats to bfloat16, sign-extended to 32 bits: what the signed pack to 16 bits keeps unchanged.
CGNRT_HD __m256i bfloat16s_of(__m256 values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
  return _mm256_srai_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
}

// Four floats to integers that saturate to 0..255 in the packs. The minimum's second operand wins over a NaN,
// which then converts to the lowest integer, as does what lies far below.
CGNRT_HD __m128i bytes_of(const float* from) {
  return _mm_cvtps_epi32(_mm_min_ps(_mm_set1_ps(255.0f), _mm_loadu_ps(from)));
}

#endif

CGNRT_HD void floats_to_bfloat16s(std::uint16_t* __restrict to, const float* __restrict from,
                                  std::int64_t count) {
  std::int64_t at = 0;
#if defined(__AVX2__)
  for (; at + 16 <= count; at += 16) {
    const __m256i packed = _mm256_packs_epi32(bfloat16s_of(_mm256_loadu_ps(from + at)),
                                              bfloat16s_of(_mm256_loadu_ps(from + at + 8)));
    // The pack works on each half: put its quarters in order.
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + at), _mm256_permute4x64_epi64(packed, 0xd8));
  }
#endif
  for (; at < count; ++at) to[at] = float_to_bfloat16(from[at]);
}

CGNRT_HD void floats_to_bytes(std::uint8_t* __restrict to, const float* __restrict from, std::int64_t count) {
  std::int64_t at = 0;
#if defined(__AVX2__)
  for (; at + 16 <= count; at += 16) {
    const __m128i low = _mm_packs_epi32(bytes_of(from + at), bytes_of(from + at + 4));
    const __m128i high = _mm_packs_epi32(bytes_of(from + at + 8), bytes_of(from + at + 12));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + at), _mm_packus_epi16(low, high));
  }
#endif
  for (; at < count; ++at) to[at] = float_to_uint8(from[at]);
}

}  // namespace cgnrt
