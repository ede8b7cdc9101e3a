// Compiled once for every instruction set, with CGNRT_ISA naming the namespace, and with contraction to FMA:
// engines agree to a tolerance, unlike the ops. Only kDeep may have external linkage here, and every function
// of a header must be inlined: else the linker keeps one copy of it for all instruction sets.
#include "engines/deep/attention.h"
#include "engines/deep/convolve.h"
#include "engines/deep/kernel.h"
#include "engines/deep/pixels.h"
#include "engines/deep/thin.h"

namespace cgnrt {
namespace deep {
namespace CGNRT_ISA {
namespace {

bool is_convolution(const Step& step) {
  return step.kind == StepKind::kConv || step.kind == StepKind::kUpConv;
}

Panels panels(const Step& step, const Picture& in, const Picture& out) {
  const int count = panels_of(out.channels);
  switch (step.method) {
    case Method::kTile2:
      return {count, panel_floats_tiles<Tile2>(in)};
    case Method::kTile4:
      return {count, panel_floats_tiles<Tile4>(in)};
    case Method::kUp:
      return {count, panel_floats_tiles<Up>(in)};
    case Method::kThin:
      return {1, panel_floats_thin(step, in, out)};
    default:
      return {count, panel_floats_direct(step, in)};
  }
}

void pack(const Step& step, const Picture& in, const Picture& out, int panel, float* to) {
  switch (step.method) {
    case Method::kTile2:
      return pack_tiles<Tile2>(step, in, out, panel, to);
    case Method::kTile4:
      return pack_tiles<Tile4>(step, in, out, panel, to);
    case Method::kUp:
      return pack_tiles<Up>(step, in, out, panel, to);
    case Method::kThin:
      return pack_thin(step, in, out, to);
    default:
      return pack_direct(step, in, out, panel, to);
  }
}

Cut cut_convolution(const PictureNetwork& net, const Step& step, int threads) {
  switch (step.method) {
    case Method::kTile2:
      return cut_tiles<Tile2>(net, step, threads);
    case Method::kTile4:
      return cut_tiles<Tile4>(net, step, threads);
    case Method::kUp:
      return cut_tiles<Up>(net, step, threads);
    case Method::kThin:
      return cut_thin(net, step, threads);
    default:
      return cut_direct(net, step, threads);
  }
}

Cut cut(const PictureNetwork& net, const Step& step, int threads) {
  if (is_convolution(step)) return cut_convolution(net, step, threads);
  if (step.kind == StepKind::kAttention) return cut_attention(net, step, threads);
  return cut_lines(net, step, threads);
}

void run_first(const Frame& f, const Cut& how, std::int64_t task) {
  if (f.step->kind == StepKind::kAttention) return pack_attention(f, how, task);
  switch (f.step->method) {
    case Method::kTile2:
      return run_first_tiles<Tile2>(f, how, task);
    case Method::kTile4:
      return run_first_tiles<Tile4>(f, how, task);
    default:
      return run_first_tiles<Up>(f, how, task);
  }
}

void run_convolution(const Frame& f, const Cut& how, std::int64_t task, float* scratch) {
  switch (f.step->method) {
    case Method::kTile2:
      return run_tiles<Tile2>(f, how, task, scratch);
    case Method::kTile4:
      return run_tiles<Tile4>(f, how, task, scratch);
    case Method::kUp:
      return run_tiles<Up>(f, how, task, scratch);
    case Method::kThin:
      return run_thin(f, how, task, scratch);
    default:
      return run_direct(f, how, task, scratch);
  }
}

void run(const Frame& f, const Cut& how, std::int64_t task, float* scratch) {
  switch (f.step->kind) {
    case StepKind::kStart:
      return run_start(f, how, task, scratch);
    case StepKind::kImage:
      return run_image(f, how, task, scratch);
    case StepKind::kMaxPool:
      return run_max_pool(f, how, task, scratch);
    case StepKind::kResize:
      return run_resize(f, how, task, scratch);
    case StepKind::kAttention:
      return run_attention(f, how, task, scratch);
    case StepKind::kPointwise:
      return run_pointwise(f, how, task, scratch);
    default:
      return run_convolution(f, how, task, scratch);
  }
}

}  // namespace

const Kernel kDeep = {panels, pack, cut, run_first, run};

}  // namespace CGNRT_ISA
}  // namespace deep
}  // namespace cgnrt
