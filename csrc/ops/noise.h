// noise: Philox 4x32-10 words of sample indices, and the numbers made of them.
//
// Element e of sample i's draw in a slot is word e % 4 of the block with the key (seed low, seed high) and
// the counter (i low, i high, slot, e / 4): a function of (seed, i, slot, e) and of nothing else. noise_ref
// is the specification, noise_cpu the vectorised and threaded version; noise() validates a call and runs it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/tensor.h"

namespace cgnrt {

enum class NoiseKind { kWords, kNormal, kTruncatedNormal, kIntegers };

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

// `isa` is one of the names in cpu_isas() (common/cpu.h), or null for the best.
void noise_cpu(const NoiseArgs& args, const char* isa);

// A call as it comes from outside; nothing in it is trusted.
struct NoiseCall {
  const char* operation = "";  // the public function's name, for messages
  Device device;               // where it is to run
  NoiseKind kind = NoiseKind::kWords;
  std::uint64_t seed = 0;
  Tensor indices;  // (n) int64
  std::uint32_t slot = 0;
  std::int64_t size = 0;
  std::vector<std::uint32_t> bounds;    // (size) or (1)
  std::string implementation = "auto";  // "auto", "reference" or a name in cpu_isas()
};

DType noise_dtype(NoiseKind kind);

// Checks the inputs but for the indices' values, and gives the shape of the result. Throws
// std::invalid_argument.
std::vector<std::int64_t> noise_shape(const NoiseCall& call);

// Checks where numbers of that shape are to be written. Throws std::invalid_argument.
void require_noise_out(const NoiseCall& call, const Tensor& out, const std::vector<std::int64_t>& shape);

// On the CPU: checks the rest and draws into `out`. Throws std::invalid_argument before anything is written.
void noise(const NoiseCall& call, const Tensor& out);

}  // namespace cgnrt
