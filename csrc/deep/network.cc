#include "deep/network.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <new>
#include <string>

#include "common/tensor.h"
#include "common/thread_pool.h"
#include "deep/kernel.h"

namespace cgnrt {
namespace deep {
namespace {

std::int64_t whole_cache_lines(std::int64_t floats) { return (floats + 15) / 16 * 16; }

// (n, whole lines of channels) of one map, from the caller's vectors and the bias; empty where it does
// nothing.
void fill_map(const Network& net, const Affine& affine, const std::vector<float>* bias, int channels,
              const std::vector<const float*>& vectors, std::int64_t n, std::vector<float>& scale,
              std::vector<float>& shift) {
  const int lines = whole_lines(channels);
  const bool has_bias = bias != nullptr && !bias->empty();
  scale.assign(affine.scale < 0 ? 0 : n * lines, 0.0f);
  shift.assign(affine.shift < 0 && !has_bias ? 0 : n * lines, 0.0f);
  for (std::int64_t i = 0; i < n; ++i) {
    for (int c = 0; c < channels; ++c) {
      float factor = 1;
      if (affine.scale >= 0) {
        factor = vectors[affine.scale][i * net.vector_widths[affine.scale] + c];
        scale[i * lines + c] = factor;
      }
      if (shift.empty()) continue;
      float offset = has_bias ? (*bias)[c] * factor : 0;
      if (affine.shift >= 0) offset += vectors[affine.shift][i * net.vector_widths[affine.shift] + c];
      shift[i * lines + c] = offset;
    }
  }
}

struct StepMaps {
  std::vector<float> scales[3];
  std::vector<float> shifts[3];
  Maps at(int k) const {
    return {scales[k].empty() ? nullptr : scales[k].data(), shifts[k].empty() ? nullptr : shifts[k].data()};
  }
};

StepMaps maps_of(const Network& net, const Step& step, const std::vector<const float*>& vectors,
                 std::int64_t n) {
  StepMaps maps;
  const int out = net.pictures[step.out].channels;
  const int in = step.in.empty() ? out : net.pictures[step.in[0]].channels;
  fill_map(net, step.before, nullptr, in, vectors, n, maps.scales[0], maps.shifts[0]);
  fill_map(net, step.after, &step.bias, out, vectors, n, maps.scales[1], maps.shifts[1]);
  fill_map(net, step.last, nullptr, out, vectors, n, maps.scales[2], maps.shifts[2]);
  return maps;
}

void run_tasks(const Kernel& kernel, const Frame& frame, const Cut& cut, int threads) {
  std::atomic<bool> out_of_memory{false};
  parallel_for(cut.tasks, threads, [&](std::int64_t task) {
    // Kept by the thread: fresh memory for every task would cost as much as a layer.
    thread_local Floats scratch;
    thread_local std::int64_t held = 0;
    if (held < cut.scratch) {
      try {
        scratch = Floats();
        held = 0;
        scratch = Floats(cut.scratch);
        held = cut.scratch;
      } catch (const std::bad_alloc&) {
        out_of_memory = true;  // a task must not throw
        return;
      }
    }
    kernel.run(frame, cut, task, scratch.data());
  });
  if (out_of_memory) throw std::bad_alloc();
}

void write_out(const Network& net, const Picture& picture, float* const* slots, std::int64_t n, float* out,
               int threads) {
  const float* from = slots[net.slots[picture.buffer]] + picture.first;
  parallel_for(n * picture.height, threads, [&](std::int64_t line) {
    const std::int64_t image = line / picture.height;
    const std::int64_t row = line % picture.height * picture.width;
    for (int c = 0; c < picture.channels; ++c) {
      float* to = out + (image * picture.channels + c) * picture.pixels() + row;
      const float* pixel = from + (image * picture.pixels() + row) * picture.stride + c;
      for (int x = 0; x < picture.width; ++x) to[x] = pixel[static_cast<std::int64_t>(x) * picture.stride];
    }
  });
}

}  // namespace

const Kernel& kernel_for(Isa isa) {
  switch (isa) {
#if defined(CGNRT_HAVE_X86_VARIANTS)
    case Isa::kX86V4:
      return x86_v4::kDeep;
    case Isa::kX86V3:
      return x86_v3::kDeep;
#endif
    default:
      return baseline::kDeep;
  }
}

std::int64_t workspace_floats(const Network& network, std::int64_t n) {
  std::int64_t floats = whole_cache_lines(network.most_channels);
  for (const std::int64_t slot : network.slot_floats) floats += whole_cache_lines(n * slot);
  return floats;
}

std::vector<double> run(const Network& net, const std::vector<const float*>& vectors, const float* image,
                        std::int64_t n, const std::vector<float*>& outs, Workspace& workspace, int threads) {
  std::vector<double> seconds;
  if (n == 0) return seconds;
  const Kernel& kernel = kernel_for(net.isa);
  if (threads <= 0) threads = available_cpus();
  float* memory = workspace.reserve(workspace_floats(net, n));
  float* const zeros = memory;
  std::fill_n(zeros, net.most_channels, 0.0f);
  memory += whole_cache_lines(net.most_channels);
  std::vector<float*> slots;
  for (const std::int64_t slot : net.slot_floats) {
    slots.push_back(memory);
    memory += whole_cache_lines(n * slot);
  }
  Floats shared;
  for (const Step& step : net.steps) {
    const auto begun = std::chrono::steady_clock::now();
    const StepMaps maps = maps_of(net, step, vectors, n);
    const Cut cut = kernel.cut(net, step, n, threads);
    if (cut.shared > 0) shared = Floats(cut.shared);
    Frame frame;
    frame.network = &net;
    frame.step = &step;
    frame.n = n;
    frame.slots = slots.data();
    frame.vector = step.vector < 0 ? nullptr : vectors[step.vector];
    frame.image = image;
    frame.before = maps.at(0);
    frame.after = maps.at(1);
    frame.last = maps.at(2);
    frame.zeros = zeros;
    frame.shared = shared.data();
    kernel.begin(frame);
    run_tasks(kernel, frame, cut, threads);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
  }
  for (std::size_t k = 0; k < outs.size(); ++k) {
    write_out(net, net.pictures[net.outputs[k]], slots.data(), n, outs[k], threads);
  }
  return seconds;
}

}  // namespace deep
}  // namespace cgnrt
