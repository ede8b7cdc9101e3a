#include "engines/small/generator.h"

#include <algorithm>
#include <string>

#include "common/tensor.h"
#include "common/thread_pool.h"
#include "engines/scratch.h"

namespace cgnrt {
namespace small {
namespace {

// Floats that a thread keeps, at most. Far more than a cache holds, and outside the cache this engine is not
// fast.
constexpr std::size_t kMostScratch = std::size_t{2} << 20;

bool is_convolution(const Layer& layer) {
  return layer.kind == LayerKind::kUpConv || layer.kind == LayerKind::kConv3;
}

void require_count(const std::string& subject, const char* field, std::size_t got, std::int64_t expected) {
  if (static_cast<std::int64_t>(got) != expected) {
    refuse(subject, field, std::to_string(got) + " numbers", std::to_string(expected));
  }
}

void require_fit(const std::string& subject, const PictureShape& shape, int tile) {
  const std::string text = std::to_string(shape.channels) + " x " + std::to_string(shape.height) + " x " +
                           std::to_string(shape.width);
  // Bounds that keep every product of sizes far from overflow.
  constexpr int kMost = 4096;
  if (shape.channels < 1 || shape.height < 1 || shape.width < 1 || shape.channels > kMost ||
      shape.height > kMost || shape.width > kMost) {
    refuse(subject, "picture", text, "sizes from 1 to " + std::to_string(kMost));
  }
  if (shape.width % kRun != 0 || shape.pixels() % tile != 0) {
    refuse(subject, "picture", text,
           "a width divisible by " + std::to_string(kRun) + " and a number of pixels divisible by " +
               std::to_string(tile));
  }
}

void prepare_layer(const std::string& subject, Layer& layer, const PictureShape& in, int tile) {
  layer.in = in;
  const int out_channels = is_convolution(layer) ? static_cast<int>(layer.bias.size()) : in.channels;
  const int scale = layer.kind == LayerKind::kUpConv ? 2 : 1;
  layer.out = {out_channels, in.height * scale, in.width * scale};
  require_fit(subject, layer.out, tile);
  const std::int64_t pairs = static_cast<std::int64_t>(in.channels) * out_channels;
  if (layer.kind == LayerKind::kUpConv) require_count(subject, "weight", layer.weight.size(), pairs * 16);
  if (layer.kind == LayerKind::kConv3) require_count(subject, "weight", layer.weight.size(), pairs * 9);
  if (layer.kind == LayerKind::kInstanceNorm) {
    require_count(subject, "scale", layer.weight.size(), in.channels);
    require_count(subject, "bias", layer.bias.size(), in.channels);
  }
}

}  // namespace

void prepare(SmallGenerator& generator, const char* isa) {
  generator.isa = pick_isa(isa);
  const SmallKernel& kernel = CGNRT_PICK_VARIANT(kSmall, generator.isa);
  generator.inputs = 0;
  for (const int width : generator.input_widths) generator.inputs += width;
  require_fit("engine linear", generator.first, kernel.tile);
  require_count("engine linear", "weight", generator.linear_weight.size(),
                generator.first.count() * generator.inputs);
  require_count("engine linear", "bias", generator.linear_bias.size(), generator.first.count());
  PictureShape shape = generator.first;
  for (std::size_t k = 0; k < generator.layers.size(); ++k) {
    prepare_layer("engine layer " + std::to_string(k), generator.layers[k], shape, kernel.tile);
    shape = generator.layers[k].out;
  }
  generator.last = shape;
  // A picture gets a border if a convolution reads it before another picture takes its place.
  int pad = 0;
  for (std::size_t k = generator.layers.size(); k-- > 0;) {
    generator.layers[k].out_pad = pad;
    if (is_convolution(generator.layers[k])) pad = 1;
  }
  generator.first_pad = pad;
  const std::size_t scratch = kernel.scratch(generator);
  if (scratch > kMostScratch) {
    refuse("engine network", "working memory", std::to_string(scratch * sizeof(float)) + " bytes a thread",
           "at most " + std::to_string(kMostScratch * sizeof(float)));
  }
  kernel.pack(generator);
}

void run(const SmallGenerator& generator, const std::vector<const float*>& inputs, std::int64_t n, float* out,
         int threads) {
  const SmallKernel& kernel = CGNRT_PICK_VARIANT(kSmall, generator.isa);
  const std::int64_t wanted = threads > 0 ? threads : cpus_for(n);
  const auto threads_used = static_cast<int>(std::clamp<std::int64_t>(n, 1, wanted));
  // As many groups for each thread, of one size or two: a thread would wait for another's last group.
  const std::int64_t rounds = (n + kGroup * threads_used - 1) / (kGroup * threads_used);
  const std::int64_t tasks = std::min(n, rounds * threads_used);
  parallel_with_scratch(
      tasks, threads_used, kernel.scratch(generator), [&](std::int64_t task, float* scratch) {
        const std::int64_t first = n * task / tasks;
        const std::int64_t last = n * (task + 1) / tasks;
        kernel.run_group(generator, inputs, first, static_cast<int>(last - first), out, scratch);
      });
}

}  // namespace small
}  // namespace cgnrt
