#include "engine/network.h"

#include <algorithm>
#include <atomic>
#include <new>
#include <string>

#include "common/tensor.h"
#include "common/thread_pool.h"
#include "engine/network_kernel.h"

namespace cgnrt {
namespace {

// Floats that a thread keeps: far above what stays in a cache, where this engine has nothing to give.
constexpr std::size_t kMostScratch = std::size_t{2} << 20;

const EngineKernel& kernel_for(Isa isa) {
  switch (isa) {
#if defined(CGNRT_HAVE_X86_VARIANTS)
    case Isa::kX86V4:
      return x86_v4::kEngine;
    case Isa::kX86V3:
      return x86_v3::kEngine;
#endif
    default:
      return baseline::kEngine;
  }
}

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
           "a width that " + std::to_string(kRun) + " divides and pixels that " + std::to_string(tile) +
               " divides");
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

void prepare(Network& network, const char* isa) {
  network.isa = pick_isa(isa);
  const EngineKernel& kernel = kernel_for(network.isa);
  network.inputs = 0;
  for (const int width : network.input_widths) network.inputs += width;
  require_fit("engine linear", network.first, kernel.tile);
  require_count("engine linear", "weight", network.linear_weight.size(),
                network.first.count() * network.inputs);
  require_count("engine linear", "bias", network.linear_bias.size(), network.first.count());
  PictureShape shape = network.first;
  for (std::size_t k = 0; k < network.layers.size(); ++k) {
    prepare_layer("engine layer " + std::to_string(k), network.layers[k], shape, kernel.tile);
    shape = network.layers[k].out;
  }
  network.last = shape;
  // A picture gets a border if a convolution reads it before another picture takes its place.
  int pad = 0;
  for (std::size_t k = network.layers.size(); k-- > 0;) {
    network.layers[k].out_pad = pad;
    if (is_convolution(network.layers[k])) pad = 1;
  }
  network.first_pad = pad;
  const std::size_t scratch = kernel.scratch(network);
  if (scratch > kMostScratch) {
    refuse("engine network", "working memory", std::to_string(scratch * sizeof(float)) + " bytes a thread",
           "at most " + std::to_string(kMostScratch * sizeof(float)));
  }
  kernel.pack(network);
}

void run(const Network& network, const std::vector<const float*>& inputs, std::int64_t n, float* out,
         int threads) {
  const EngineKernel& kernel = kernel_for(network.isa);
  const std::int64_t wanted = threads > 0 ? threads : available_cpus();
  // Groups of fewer images where that is what keeps every thread busy.
  const std::int64_t group = std::clamp<std::int64_t>((n + wanted - 1) / wanted, 1, kGroup);
  const std::int64_t tasks = (n + group - 1) / group;
  const std::size_t floats = kernel.scratch(network);
  std::atomic<bool> out_of_memory{false};
  parallel_for(tasks, static_cast<int>(std::min<std::int64_t>(wanted, std::max<std::int64_t>(tasks, 1))),
               [&](std::int64_t task) {
                 // Kept by the thread: fresh memory for every task would cost as much as a layer.
                 thread_local Floats scratch;
                 thread_local std::size_t held = 0;
                 if (held < floats) {
                   try {
                     scratch = Floats(floats);
                   } catch (const std::bad_alloc&) {
                     out_of_memory = true;  // a task must not throw
                     return;
                   }
                   held = floats;
                 }
                 const std::int64_t first = task * group;
                 kernel.run_group(network, inputs, first, static_cast<int>(std::min(group, n - first)), out,
                                  scratch.data());
               });
  if (out_of_memory) throw std::bad_alloc();
}

}  // namespace cgnrt
