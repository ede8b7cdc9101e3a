// The one door to compose: a call, and what is checked of it on every device.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/tensor.h"
#include "ops/compose.h"

namespace cgnrt {

// A call as it comes from outside; nothing in it is trusted.
struct ComposeCall {
  Device device;                                 // where it is to run
  Tensor masks;                                  // (M, 1, h, w) float32 or float16
  Tensor foregrounds;                            // (F, c, h, w), alike
  Tensor backgrounds;                            // (B, c, h, w), alike
  std::optional<Tensor> index;                   // (n, 3) int32 or int64; absent: in order
  std::optional<Tensor> rolls;                   // (n, 2, 2) int32 or int64; absent: none
  std::vector<float> scale;                      // (c), (1) for all channels, or empty: none
  std::vector<float> bias;                       // alike
  std::optional<std::pair<float, float>> clamp;  // low, high
  DType output = DType::kFloat32;
  Layout layout = Layout::kNCHW;
  int threads = 0;
  Streaming streaming = Streaming::kBySize;  // of the tests and the benchmark
  std::string implementation = "auto";       // "auto", "reference" or a name in cpu_isas()
};

// Checks the shapes and dtypes of the inputs and gives the shape of the batch. Throws std::invalid_argument.
std::vector<std::int64_t> compose_shape(const ComposeCall& call);

// Checks where a batch of that shape is to be written. Throws std::invalid_argument.
void require_compose_out(const ComposeCall& call, const Tensor& out, const std::vector<std::int64_t>& shape);

// On the CPU: checks the rest, index and rolls item by item, and composes into `out`. Throws
// std::invalid_argument before anything is written.
void compose(const ComposeCall& call, const Tensor& out);

}  // namespace cgnrt
