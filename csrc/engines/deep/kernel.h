// The loops of deep networks, compiled once for every instruction set (CMakeLists.txt).
#pragma once

#include <cstdint>

#include "engines/deep/network.h"

namespace cgnrt {
namespace deep {

// Whole lines of channels each, or null.
struct Maps {
  const float* scale = nullptr;
  const float* shift = nullptr;
};

// One step for one image, with everything that it reads and writes.
struct Frame {
  const PictureNetwork* network = nullptr;
  const Step* step = nullptr;
  float* const* slots = nullptr;
  const float* vector = nullptr;  // of a start
  const float* image = nullptr;   // (c, h, w)
  Maps before, after, last;
  const float* zeros = nullptr;  // as many as any picture has channels
  float* shared = nullptr;       // of all tasks of the step

  const Picture& in(int k = 0) const { return network->pictures[step->in[k]]; }
  const Picture& out() const { return network->pictures[step->out]; }
  float* data(const Picture& p) const { return slots[network->slots[p.buffer]] + p.first; }
};

// How a step is cut into tasks.
struct Cut {
  std::int64_t first_tasks = 0;  // of work that must be done before the tasks
  std::int64_t tasks = 0;
  int rows = 0;              // of a task: pixels, tiles or lines of pixels
  int panels = 0;            // of a task
  int panel_tasks = 1;       // tasks for the same rows
  std::int64_t scratch = 0;  // floats of a task
  std::int64_t shared = 0;   // floats of all
};

// Packed weights: panels, each of the output channels of a matrix tile.
struct Panels {
  int count = 0;
  std::int64_t floats = 0;  // of each
};

struct Kernel {
  Panels (*panels)(const Step& step, const Picture& in, const Picture& out);
  void (*pack)(const Step& step, const Picture& in, const Picture& out, int panel, float* to);
  Cut (*cut)(const PictureNetwork& network, const Step& step, int threads);
  void (*run_first)(const Frame& frame, const Cut& cut, std::int64_t task);
  void (*run)(const Frame& frame, const Cut& cut, std::int64_t task, float* scratch);
};

CGNRT_DECLARE_VARIANTS(Kernel, kDeep)

}  // namespace deep
}  // namespace cgnrt
