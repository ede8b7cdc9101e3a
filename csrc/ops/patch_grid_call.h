// The one door to patch_grid and to plain bicubic scaling: calls, and what is checked of them on every
// device.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/tensor.h"
#include "ops/patch_grid.h"

namespace cgnrt {

// Where a call is to run, and the form in which pixels leave.
struct MosaicForm {
  Device device;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::vector<float> scale;                      // (c), (1) for all channels, or empty: none
  std::vector<float> bias;                       // alike
  std::optional<std::pair<float, float>> clamp;  // low, high
  DType output = DType::kFloat32;
  Layout layout = Layout::kNCHW;
  int threads = 0;
  std::string implementation = "auto";  // "auto", "reference" or a name in cpu_isas()
};

// A call as it comes from outside; nothing in it is trusted.
struct PatchGridCall {
  Tensor masks;                   // (S, 1, h, w) float32 in [0, 1]
  Tensor images;                  // (S, c, h, w) float32
  Tensor picks;                   // (n, grid * grid) int32 or int64: ranks of windows, below top
  std::optional<Tensor> index;    // (n, 3) with a blend, (n, 1) without; absent: in order
  std::optional<Tensor> over;     // (M, 1, height, width) float32: the blend's masks
  std::optional<Tensor> grounds;  // (B, c, height, width) float32; there exactly where `over` is
  std::int64_t patch = 15;
  std::int64_t grid = 6;
  std::int64_t top = 100;
  MosaicForm form;
};

struct ResizeCall {
  Tensor images;  // (n, c, h, w) float32
  MosaicForm form;
};

// Check the shapes and dtypes of the inputs and give the shape of the result. Throw std::invalid_argument.
std::vector<std::int64_t> patch_grid_shape(const PatchGridCall& call);
std::vector<std::int64_t> resize_shape(const ResizeCall& call);

// Check where a result of that shape is to be written. Throw std::invalid_argument.
void require_patch_grid_out(const PatchGridCall& call, const Tensor& out,
                            const std::vector<std::int64_t>& shape);
void require_resize_out(const ResizeCall& call, const Tensor& out, const std::vector<std::int64_t>& shape);

// On the CPU: check the rest, item by item, and write `out`. Throw std::invalid_argument before anything is
// written.
void patch_grid(const PatchGridCall& call, const Tensor& out);
void resize(const ResizeCall& call, const Tensor& out);

}  // namespace cgnrt
