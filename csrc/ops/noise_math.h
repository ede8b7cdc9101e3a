// The arithmetic of the noise: Philox 4x32-10 and the inverse normal CDF, shared by the CPU variants and
// CUDA.
//
// The same bits everywhere: 32-bit integers, and float32 + - * / sqrt in the order written, each rounded once
// (compiled with -ffp-contract=off; no libm).
#pragma once

#include <cstdint>

#include "common/scalar.h"

namespace cgnrt {

// Philox 4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
constexpr std::uint32_t kPhiloxMultiplier0 = 0xD2511F53u;
constexpr std::uint32_t kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr std::uint32_t kPhiloxWeyl0 = 0x9E3779B9u;
constexpr std::uint32_t kPhiloxWeyl1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 10;

// One round on the counter (x0, x1, x2, x3) with the round's key.
CGNRT_HD void philox_round(std::uint32_t& x0, std::uint32_t& x1, std::uint32_t& x2, std::uint32_t& x3,
                           std::uint32_t key0, std::uint32_t key1) {
  const std::uint64_t product0 = static_cast<std::uint64_t>(kPhiloxMultiplier0) * x0;
  const std::uint64_t product1 = static_cast<std::uint64_t>(kPhiloxMultiplier1) * x2;
  const std::uint32_t y0 = static_cast<std::uint32_t>(product1 >> 32) ^ x1 ^ key0;
  const std::uint32_t y2 = static_cast<std::uint32_t>(product0 >> 32) ^ x3 ^ key1;
  x1 = static_cast<std::uint32_t>(product1);
  x3 = static_cast<std::uint32_t>(product0);
  x0 = y0;
  x2 = y2;
}

// Philox of one counter, in place.
CGNRT_HD void philox(std::uint32_t counter[4], std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    philox_round(counter[0], counter[1], counter[2], counter[3], key0, key1);
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
}

// A uniform integer in 0..bound-1: the high half of the product (bound <= 2^31).
CGNRT_HD std::int32_t uniform_below(std::uint32_t word, std::uint32_t bound) {
  return static_cast<std::int32_t>((static_cast<std::uint64_t>(word) * bound) >> 32);
}

// IEEE rounds it correctly, so every implementation gives the same bits.
CGNRT_HD float square_root(float value) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(value);
#else
  return __builtin_sqrtf(value);
#endif
}

// -ln(p) for p in (0, 1): p = 2^e * (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), ln(1 + f) = f + f^2 * L(f).
// L: minimax fit (weighted least squares, Lawson's iteration on 4,000 Chebyshev nodes) of degree 7, absolute
// error of f^2 * L 6.5e-9. ln 2 is split so that e * kLn2High is exact.
CGNRT_HD float minus_log(float p) {
  constexpr std::uint32_t kSqrtHalf = 0x3f3504f3u;
  constexpr float kLn2High = 0x1.62ep-1f;
  constexpr float kLn2Low = 0x1.0bfbe8p-15f;
  const std::int32_t shifted = static_cast<std::int32_t>(bits_of(p) - kSqrtHalf);
  const std::int32_t exponent = shifted >> 23;
  const float f = float_of((static_cast<std::uint32_t>(shifted) & 0x007fffffu) + kSqrtHalf) - 1.0f;
  float l = 0.0873362124f;
  l = l * f + -0.144418702f;
  l = l * f + 0.149792865f;
  l = l * f + -0.16552335f;
  l = l * f + 0.19953613f;
  l = l * f + -0.250024915f;
  l = l * f + 0.333342254f;
  l = l * f + -0.499999821f;
  const float e = static_cast<float>(exponent);
  const float fraction = f + f * f * l + e * kLn2Low;
  return -(e * kLn2High + fraction);
}

// The upper quantile of the standard normal: the z >= 0 with P(Z > z) = p, where p = 1/2 - q, 0 < p <= 1/2.
// The caller gives both p and q, each accurate near its own zero.
//   q < 3/8: z = q * C(q^2), C of degree 8, relative error 3.5e-8.
//   else:    z = sqrt(2) * s - T(s - 3) with s = sqrt(-ln p), T of degree 10, error relative to z 6.4e-8,
//   down to
//            p = 2^-33.
// Both fitted as L above, against a float64 inverse CDF. Float32 rounding makes most of the error. Over all
// words, at most 1.2e-6 absolute (at z = 5.4) and 3.8e-7 relative, and the curve never falls from one word to
// the next.
CGNRT_HD float upper_quantile(float p, float q) {
  const float r = q * q;
  float centre = 113157.312f;
  centre = centre * r + -41477.3086f;
  centre = centre * r + 8135.61182f;
  centre = centre * r + -579.078979f;
  centre = centre * r + 86.31427f;
  centre = centre * r + 14.5053568f;
  centre = centre * r + 5.78952074f;
  centre = centre * r + 2.62484026f;
  centre = centre * r + 2.50662827f;
  centre = centre * q;

  const float s = square_root(minus_log(p));
  const float d = s - 3.0f;
  float t = 2.41089401e-06f;
  t = t * d + -8.3398354e-06f;
  t = t * d + 9.25349104e-06f;
  t = t * d + -3.24607681e-05f;
  t = t * d + 0.000169434905f;
  t = t * d + -0.000595222344f;
  t = t * d + 0.0020814701f;
  t = t * d + -0.00772413192f;
  t = t * d + 0.0296793953f;
  t = t * d + -0.121172048f;
  t = t * d + 0.577103019f;
  const float tail = 1.41421354f * s - t;

  return q < 0.375f ? centre : tail;
}

// The word w stands for the uniform (w + 1/2) / 2^32, which is never 0 or 1. The upper and lower half mirror
// each other bit by bit, so the result is exactly symmetric.
struct Tail {
  float p;             // distance of the uniform from the nearer end: (k + 1/2) / 2^32 <= 1/2
  float q;             // its distance from 1/2
  std::uint32_t sign;  // 0x80000000 in the lower half
};

CGNRT_HD Tail tail_of(std::uint32_t word) {
  const std::uint32_t upper =
      static_cast<std::uint32_t>(static_cast<std::int32_t>(word) >> 31);  // all ones, or 0
  const std::int32_t k = static_cast<std::int32_t>((word ^ upper) & 0x7fffffffu);
  const std::int32_t mirrored = 0x7fffffff - k;
  Tail tail;
  tail.p = (static_cast<float>(k) + 0.5f) * 0x1p-32f;
  tail.q = (static_cast<float>(mirrored) + 0.5f) * 0x1p-32f;
  tail.sign = ~upper & 0x80000000u;
  return tail;
}

// Standard normal: |z| <= 6.34.
CGNRT_HD float normal_of(std::uint32_t word) {
  const Tail tail = tail_of(word);
  return float_of(bits_of(upper_quantile(tail.p, tail.q)) | tail.sign);
}

// Normal truncated to [-2, 2]: the uniform goes to Phi(-2) + u * (Phi(2) - Phi(-2)) first.
CGNRT_HD float truncated_normal_of(std::uint32_t word) {
  constexpr float kOutside = 0.0227501319f;  // Phi(-2)
  constexpr float kInside = 0.954499736f;    // Phi(2) - Phi(-2)
  const Tail tail = tail_of(word);
  const float z = upper_quantile(tail.p * kInside + kOutside, tail.q * kInside);
  return float_of(bits_of(z < 2.0f ? z : 2.0f) | tail.sign);
}

}  // namespace cgnrt
