// Compiled once for every instruction set; the rules at the top of compose_kernel.cc hold here too.
#include <cstring>

#include "ops/noise.h"
#include "ops/noise_math.h"

namespace cgnrt {
namespace CGNRT_ISA {
namespace {

constexpr int kLanes = 16;  // blocks computed side by side

struct alignas(64) Batch {
  std::uint32_t x0[kLanes], x1[kLanes], x2[kLanes], x3[kLanes];  // counters, then words
  std::uint32_t words[4 * kLanes];                               // in order
  std::uint32_t bounds[4 * kLanes];
  std::uint32_t numbers[4 * kLanes];  // bits of the results
};

inline void run_philox(Batch& b, std::uint64_t seed) {
  std::uint32_t key0 = static_cast<std::uint32_t>(seed);
  std::uint32_t key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    for (int lane = 0; lane < kLanes; ++lane) {
      philox_round(b.x0[lane], b.x1[lane], b.x2[lane], b.x3[lane], key0, key1);
    }
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    b.words[4 * lane] = b.x0[lane];
    b.words[4 * lane + 1] = b.x1[lane];
    b.words[4 * lane + 2] = b.x2[lane];
    b.words[4 * lane + 3] = b.x3[lane];
  }
}

inline void convert(Batch& b, NoiseKind kind) {
  switch (kind) {
    case NoiseKind::kWords:
      for (int i = 0; i < 4 * kLanes; ++i) b.numbers[i] = b.words[i];
      break;
    case NoiseKind::kNormal:
      for (int i = 0; i < 4 * kLanes; ++i) b.numbers[i] = bits_of(normal_of(b.words[i]));
      break;
    case NoiseKind::kTruncatedNormal:
      for (int i = 0; i < 4 * kLanes; ++i) b.numbers[i] = bits_of(truncated_normal_of(b.words[i]));
      break;
    case NoiseKind::kIntegers:
      for (int i = 0; i < 4 * kLanes; ++i) {
        b.numbers[i] = static_cast<std::uint32_t>(uniform_below(b.words[i], b.bounds[i]));
      }
      break;
  }
}

void noise_rows(const NoiseArgs& a, std::int64_t first, std::int64_t last) {
  Batch b{};
  unsigned char* out = static_cast<unsigned char*>(a.out);
  const std::int64_t per_row = (a.size + 3) / 4;
  std::int64_t row = first;
  std::int64_t block = 0;
  while (row < last) {
    // Lanes run on over the ends of rows: short rows fill them too.
    const std::int64_t start_row = row;
    const std::int64_t start_block = block;
    int used = 0;
    for (; used < kLanes && row < last; ++used) {
      const std::uint64_t index = static_cast<std::uint64_t>(a.indices[row]);
      b.x0[used] = static_cast<std::uint32_t>(index);
      b.x1[used] = static_cast<std::uint32_t>(index >> 32);
      b.x2[used] = a.slot;
      b.x3[used] = static_cast<std::uint32_t>(block);
      if (a.kind == NoiseKind::kIntegers) {
        for (int j = 0; j < 4; ++j)
          b.bounds[4 * used + j] = 4 * block + j < a.size ? a.bounds[4 * block + j] : 1u;
      }
      if (++block == per_row) {
        block = 0;
        ++row;
      }
    }
    run_philox(b, a.seed);
    convert(b, a.kind);
    row = start_row;
    block = start_block;
    for (int lane = 0; lane < used; ++lane) {
      const std::int64_t left = a.size - 4 * block;
      unsigned char* to = out + (row * a.size + 4 * block) * 4;
      if (left >= 4) {
        std::memcpy(to, b.numbers + 4 * lane, 16);
      } else {
        std::memcpy(to, b.numbers + 4 * lane, static_cast<std::size_t>(left) * 4);
      }
      if (++block == per_row) {
        block = 0;
        ++row;
      }
    }
  }
}

}  // namespace

const NoiseKernel kNoise = {noise_rows};

}  // namespace CGNRT_ISA
}  // namespace cgnrt
