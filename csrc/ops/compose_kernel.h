// The vectorised loops of compose, compiled once for every instruction set (CMakeLists.txt).
#pragma once

#include <cstdint>

#include "common/hd.h"
#include "ops/compose.h"

namespace cgnrt {

// A block is the unit of work, small enough for the first-level cache with all its channels: as many whole
// rows of one sample as have this many pixels, or a part of a longer row.
constexpr std::int64_t kBlockPixels = 1024;

CGNRT_HD std::int64_t blocks_per_sample(const ComposeArgs& a) {
  if (a.width > kBlockPixels) return a.height * ((a.width + kBlockPixels - 1) / kBlockPixels);
  const std::int64_t rows = kBlockPixels / a.width;
  return (a.height + rows - 1) / rows;
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
