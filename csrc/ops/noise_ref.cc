#include "ops/noise.h"
#include "ops/noise_math.h"

namespace cgnrt {

void noise_ref(const NoiseArgs& a) {
  for (std::int64_t i = 0; i < a.n; ++i) {
    for (std::int64_t e = 0; e < a.size; ++e) {
      const std::uint64_t index = static_cast<std::uint64_t>(a.indices[i]);
      std::uint32_t counter[4] = {static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                                  a.slot, static_cast<std::uint32_t>(e / 4)};
      philox(counter, static_cast<std::uint32_t>(a.seed), static_cast<std::uint32_t>(a.seed >> 32));
      const std::uint32_t word = counter[e % 4];
      const std::int64_t at = i * a.size + e;
      switch (a.kind) {
        case NoiseKind::kWords:
          static_cast<std::uint32_t*>(a.out)[at] = word;
          break;
        case NoiseKind::kNormal:
          static_cast<float*>(a.out)[at] = normal_of(word);
          break;
        case NoiseKind::kTruncatedNormal:
          static_cast<float*>(a.out)[at] = truncated_normal_of(word);
          break;
        case NoiseKind::kIntegers:
          static_cast<std::int32_t*>(a.out)[at] = uniform_below(word, a.bounds[e]);
          break;
      }
    }
  }
}

}  // namespace cgnrt
