// Vectors of floats for loops that are compiled once for every instruction set: include only from files that
// define CGNRT_ISA, and let nothing here get external linkage.
#pragma once

#include <cstdint>
#include <cstring>

#include "engines/floats.h"

namespace cgnrt {
namespace CGNRT_ISA {
namespace {

typedef float Run __attribute__((vector_size(kRun * 4)));
typedef float RunAt __attribute__((vector_size(kRun * 4), aligned(4), may_alias));
typedef std::int32_t RunBits __attribute__((vector_size(kRun * 4)));

inline Run load(const float* p) { return *reinterpret_cast<const RunAt*>(p); }
inline void store(float* p, Run v) { *reinterpret_cast<RunAt*>(p) = v; }
inline Run all(float x) { return Run{x, x, x, x, x, x, x, x}; }

// The widest vector of the instruction set, for matrix tiles.
#if defined(__AVX512F__)
constexpr int kWide = 16;
typedef float Wide __attribute__((vector_size(64)));
typedef float WideAt __attribute__((vector_size(64), aligned(4), may_alias));
typedef std::int32_t WideBits __attribute__((vector_size(64)));
inline Wide spread(float x) { return Wide{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
#else
constexpr int kWide = 8;
typedef Run Wide;
typedef RunAt WideAt;
inline Wide spread(float x) { return all(x); }
#endif

// A matrix tile is two of these by up to kRows rows: as many sums as keep both multipliers busy and still fit
// the registers.
constexpr int kTile = 2 * kWide;
constexpr int kRows = 6;

inline Wide load_wide(const float* p) { return *reinterpret_cast<const WideAt*>(p); }
inline void store_wide(float* p, Wide v) { *reinterpret_cast<WideAt*>(p) = v; }

// Of any vector type.
template <typename Vector>
inline Vector load_as(const float* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <typename Vector>
inline void store_as(float* p, Vector v) {
  std::memcpy(p, &v, sizeof v);
}
template <typename Vector>
constexpr int kLanes = static_cast<int>(sizeof(Vector) / sizeof(float));

template <typename Vector>
inline Vector leaky(Vector v, float slope) {
  const Vector scaled = v * slope;
  return v > 0 ? v : scaled;
}

// The larger or smaller of a value and a limit; a NaN value stays NaN.
inline Run larger(Run a, Run limit) { return limit > a ? limit : a; }
inline Run smaller(Run a, Run limit) { return limit < a ? limit : a; }

inline float sum_of(Run v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

// 2^t for t in [-126, 126], to 2e-7: 2^n times a polynomial on [-1/2, 1/2] (Taylor, to 2e-8).
inline Run power_of_two(Run t) {
  const Run magic = all(12582912.0f);  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const Run shifted = t + magic;
  RunBits n;
  std::memcpy(&n, &shifted, sizeof n);
  const Run f = t - (shifted - magic);
  Run p = all(1.5403530e-4f);
  p = p * f + 1.3333558e-3f;
  p = p * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  RunBits bits;
  std::memcpy(&bits, &p, sizeof bits);
  bits += n << 23;
  std::memcpy(&p, &bits, sizeof p);
  return p;
}

// e^x for x <= 0, as softmax needs it.
inline Run exponential_below_one(Run x) { return power_of_two(larger(x * 1.4426950409f, all(-126.0f))); }

// tanh(x) = 1 - 2 / (exp(2x) + 1), to 2e-7.
inline Run hyperbolic_tangent(Run x) {
  const Run t = x * 2.8853900818f;  // 2 / ln 2
  return 1.0f - 2.0f / (power_of_two(smaller(larger(t, all(-40.0f)), all(40.0f))) + 1.0f);
}

inline Run logistic(Run x) {
  const Run t = x * -1.4426950409f;
  return 1.0f / (1.0f + power_of_two(smaller(larger(t, all(-126.0f)), all(126.0f))));
}

}  // namespace
}  // namespace CGNRT_ISA
}  // namespace cgnrt
