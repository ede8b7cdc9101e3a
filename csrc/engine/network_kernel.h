// The engine's loops, compiled once for every instruction set (CMakeLists.txt).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/network.h"

namespace cgnrt {

struct EngineKernel {
  int tile;  // positions of a matrix tile: every layer's pixels are a multiple of it
  void (*pack)(Network& network);
  // Working memory of run_group, in floats.
  std::size_t (*scratch)(const Network& network);
  // Images first..first+count-1, count <= kGroup.
  void (*run_group)(const Network& network, const std::vector<const float*>& inputs, std::int64_t first,
                    int count, float* out, float* scratch);
};

namespace baseline {
extern const EngineKernel kEngine;
}
namespace x86_v3 {
extern const EngineKernel kEngine;
}
namespace x86_v4 {
extern const EngineKernel kEngine;
}

}  // namespace cgnrt
