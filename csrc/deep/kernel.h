// The loops of deep networks, compiled once for every instruction set (CMakeLists.txt).
#pragma once

#include <cstdint>

#include "deep/network.h"

namespace cgnrt {
namespace deep {

// (n, whole lines of channels) each, or null.
struct Maps {
  const float* scale = nullptr;
  const float* shift = nullptr;
};

// One step of a run, with everything that it reads and writes.
struct Frame {
  const Network* network = nullptr;
  const Step* step = nullptr;
  std::int64_t n = 0;
  float* const* slots = nullptr;
  const float* vector = nullptr;  // of a start
  const float* image = nullptr;   // (n, c, h, w)
  Maps before, after, last;
  const float* zeros = nullptr;  // as many as any picture has channels
  float* shared = nullptr;       // of all tasks of the step

  const Picture& in(int k = 0) const { return network->pictures[step->in[k]]; }
  const Picture& out() const { return network->pictures[step->out]; }
  float* data(const Picture& p) const { return slots[network->slots[p.buffer]] + p.first; }
};

// How a step is cut into tasks.
struct Cut {
  std::int64_t tasks = 0;
  int rows = 0;              // of a task: pixels, tiles or lines of pixels
  int panels = 0;            // of a task
  int panel_tasks = 1;       // tasks for the same rows
  std::int64_t scratch = 0;  // floats of a task
  std::int64_t shared = 0;   // floats of all
};

struct Kernel {
  void (*pack)(Step& step, const Picture& in, const Picture& out);
  Cut (*cut)(const Network& network, const Step& step, std::int64_t n, int threads);
  void (*begin)(const Frame& frame);  // before the tasks
  void (*run)(const Frame& frame, const Cut& cut, std::int64_t task, float* scratch);
};

namespace baseline {
extern const Kernel kDeep;
}
namespace x86_v3 {
extern const Kernel kDeep;
}
namespace x86_v4 {
extern const Kernel kDeep;
}

const Kernel& kernel_for(Isa isa);

}  // namespace deep
}  // namespace cgnrt
