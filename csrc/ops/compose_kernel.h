// The vectorised loops of compose, compiled once for every instruction set (CMakeLists.txt).
#pragma once

#include <cstdint>

#include "ops/compose.h"

namespace cgnrt {

// A block is a run of pixels of one sample, all channels: the unit of work, small enough for the first-level
// cache.
constexpr std::int64_t kBlockPixels = 1024;

inline std::int64_t blocks_per_sample(const ComposeArgs& a) {
  return (a.height * a.width + kBlockPixels - 1) / kBlockPixels;
}

// Composes blocks first..last-1 of the n * blocks_per_sample(a) blocks.
using ComposeBlocks = void (*)(const ComposeArgs& a, std::int64_t first, std::int64_t last);

namespace baseline {
void compose_blocks(const ComposeArgs& a, std::int64_t first, std::int64_t last);
}
namespace x86_v3 {
void compose_blocks(const ComposeArgs& a, std::int64_t first, std::int64_t last);
}
namespace x86_v4 {
void compose_blocks(const ComposeArgs& a, std::int64_t first, std::int64_t last);
}

}  // namespace cgnrt
