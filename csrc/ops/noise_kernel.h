// The vectorised loops of the noise, compiled once for every instruction set (CMakeLists.txt).
#pragma once

#include <cstdint>

#include "ops/noise.h"

namespace cgnrt {

// Draws for rows first..last-1, the indices' positions.
using NoiseRows = void (*)(const NoiseArgs& a, std::int64_t first, std::int64_t last);

namespace baseline {
void noise_rows(const NoiseArgs& a, std::int64_t first, std::int64_t last);
}
namespace x86_v3 {
void noise_rows(const NoiseArgs& a, std::int64_t first, std::int64_t last);
}
namespace x86_v4 {
void noise_rows(const NoiseArgs& a, std::int64_t first, std::int64_t last);
}

}  // namespace cgnrt
