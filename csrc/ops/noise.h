// noise: Philox 4x32-10 words of sample indices, and the numbers made of them.
//
// Element e of sample i's draw in a slot is word e % 4 of the block with the key (seed low, seed high) and
// the counter (i low, i high, slot, e / 4): a function of (seed, i, slot, e) only. Python calls noise();
// noise_validate.cc checks a call on every device. On the CPU noise_cpu.cc runs either noise_ref, which is
// the specification, or the loops of noise_kernel.cc on several threads. On a GPU noise() is in
// cuda/noise.cu.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/cpu.h"
#include "common/tensor.h"

namespace cgnrt {

enum class NoiseKind { kWords, kNormal, kTruncatedNormal, kIntegers };

// A call as Python makes it. Not checked yet.
struct NoiseCall {
  const char* operation = "";  // the public function's name, for messages
  Target target;
  NoiseKind kind = NoiseKind::kWords;
  std::uint64_t seed = 0;
  Tensor indices;  // (n) int64
  std::uint32_t slot = 0;
  std::int64_t size = 0;
  std::vector<std::uint32_t> bounds;  // (size) or (1)
  std::vector<std::int64_t> shape;    // of the result; check_noise sets it
};

DType noise_dtype(NoiseKind kind);

// Checks the inputs and sets the call's shape. Throws std::invalid_argument.
void check_noise(NoiseCall& call);

// Checks where the numbers are written to. Throws std::invalid_argument.
void require_noise_out(const NoiseCall& call, const Tensor& out);

// Checks the rest of a call that check_noise accepted, and runs it. Throws std::invalid_argument before
// anything is written. On a GPU it enqueues the work and does not wait.
void noise(const NoiseCall& call, const Tensor& out);

// A checked call: the variants on the CPU trust it.
struct NoiseArgs {
  NoiseKind kind;
  std::uint64_t seed;
  const std::int64_t* indices;  // (n), any: the counter has their 64 bits
  std::int64_t n;
  std::uint32_t slot;
  std::int64_t size;            // numbers for each index, at most 2^32
  const std::uint32_t* bounds;  // (size), 1..2^31; of kIntegers only
  void* out;                    // (n, size) uint32, float32, float32 or int32
};

void noise_ref(const NoiseArgs& args);

struct NoiseKernel {
  // Draws for indices first..last-1, by their positions.
  void (*rows)(const NoiseArgs& args, std::int64_t first, std::int64_t last);
};

CGNRT_DECLARE_VARIANTS(NoiseKernel, kNoise)

}  // namespace cgnrt
