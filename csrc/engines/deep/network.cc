#include "engines/deep/network.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <string>
#include <utility>

#include "common/tensor.h"
#include "common/thread_pool.h"
#include "engines/deep/kernel.h"
#include "engines/scratch.h"

namespace cgnrt {
namespace deep {
namespace {

std::int64_t whole_cache_lines(std::int64_t floats) { return (floats + 15) / 16 * 16; }

// The vectors of one image.
using Rows = std::vector<const float*>;

// One map in whole lines of channels, from the caller's vectors and the bias; empty where it does nothing.
void fill_map(const Affine& affine, const std::vector<float>* bias, int channels, const Rows& rows,
              std::vector<float>& scale, std::vector<float>& shift) {
  const int lines = whole_lines(channels);
  const bool has_bias = bias != nullptr && !bias->empty();
  scale.assign(affine.scale < 0 ? 0 : lines, 0.0f);
  shift.assign(affine.shift < 0 && !has_bias ? 0 : lines, 0.0f);
  if (!scale.empty()) std::copy_n(rows[affine.scale], channels, scale.data());
  if (shift.empty()) return;
  for (int c = 0; c < channels; ++c) {
    const float factor = scale.empty() ? 1 : scale[c];
    const float offset = affine.shift < 0 ? 0 : rows[affine.shift][c];
    shift[c] = has_bias ? (*bias)[c] * factor + offset : offset;
  }
}

struct StepMaps {
  std::vector<float> scales[3];
  std::vector<float> shifts[3];
  StepMaps(const PictureNetwork& net, const Step& step, const Rows& rows) {
    const int out = net.pictures[step.out].channels;
    const int in = step.in.empty() ? out : net.pictures[step.in[0]].channels;
    fill_map(step.before, nullptr, in, rows, scales[0], shifts[0]);
    fill_map(step.after, &step.bias, out, rows, scales[1], shifts[1]);
    fill_map(step.last, nullptr, out, rows, scales[2], shifts[2]);
  }
  Maps at(int k) const {
    return {scales[k].empty() ? nullptr : scales[k].data(), shifts[k].empty() ? nullptr : shifts[k].data()};
  }
};

void write_out(const PictureNetwork& net, const Picture& picture, float* const* slots, float* out,
               int threads) {
  const float* from = slots[net.slots[picture.buffer]] + picture.first;
  parallel_for(picture.height, threads, [&](std::int64_t line) {
    const std::int64_t row = line * picture.width;
    for (int c = 0; c < picture.channels; ++c) {
      float* to = out + c * picture.pixels() + row;
      const float* pixel = from + row * picture.stride + c;
      for (int x = 0; x < picture.width; ++x) to[x] = pixel[static_cast<std::int64_t>(x) * picture.stride];
    }
  });
}

}  // namespace

std::int64_t workspace_floats(const PictureNetwork& network) {
  std::int64_t floats = whole_cache_lines(network.most_channels);
  for (const std::int64_t slot : network.slot_floats) floats += whole_cache_lines(slot);
  return floats;
}

namespace {

// Working memory for a run. It is kept for the next run of any network: those of one plan run in turn.
class Workspace {
 public:
  explicit Workspace(std::int64_t floats) : floats_(floats) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      std::swap(memory_, kept_);
      std::swap(held_, kept_floats_);
    }
    if (held_ < floats_) {
      memory_ = Floats();  // frees the memory first
      memory_ = Floats(floats_);
      held_ = floats_;
    }
  }
  ~Workspace() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (held_ <= kept_floats_) return;
    std::swap(memory_, kept_);
    std::swap(held_, kept_floats_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  float* data() const { return const_cast<Floats&>(memory_).data(); }

  // A process does not fork while a thread has the lock: a child would wait for a thread that it does not
  // have.
  static void hold() { mutex_.lock(); }
  static void release() { mutex_.unlock(); }

 private:
  static std::mutex mutex_;
  static Floats kept_;
  static std::int64_t kept_floats_;
  std::int64_t floats_;
  Floats memory_;
  std::int64_t held_ = 0;
};

std::mutex Workspace::mutex_;
Floats Workspace::kept_;
std::int64_t Workspace::kept_floats_ = 0;

[[maybe_unused]] const int g_fork_handler =
    pthread_atfork(Workspace::hold, Workspace::release, Workspace::release);

// One image from its vectors to its pictures in `slots`.
void run_image(const PictureNetwork& net, const Rows& rows, const float* image, const float* zeros,
               float* const* slots, int threads, std::vector<double>& seconds) {
  const Kernel& kernel = CGNRT_PICK_VARIANT(kDeep, net.isa);
  Floats shared;
  std::int64_t held = 0;
  for (std::size_t k = 0; k < net.steps.size(); ++k) {
    const auto begun = std::chrono::steady_clock::now();
    const Step& step = net.steps[k];
    const StepMaps maps(net, step, rows);
    const Cut cut = kernel.cut(net, step, threads);
    if (cut.shared > held) {
      shared = Floats();
      shared = Floats(cut.shared);
      held = cut.shared;
    }
    Frame frame;
    frame.network = &net;
    frame.step = &step;
    frame.slots = slots;
    frame.vector = step.vector < 0 ? nullptr : rows[step.vector];
    frame.image = image;
    frame.before = maps.at(0);
    frame.after = maps.at(1);
    frame.last = maps.at(2);
    frame.zeros = zeros;
    frame.shared = shared.data();
    parallel_for(cut.first_tasks, threads, [&](std::int64_t task) { kernel.run_first(frame, cut, task); });
    parallel_with_scratch(cut.tasks, threads, static_cast<std::size_t>(cut.scratch),
                          [&](std::int64_t task, float* scratch) { kernel.run(frame, cut, task, scratch); });
    seconds[k] += std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  }
}

}  // namespace

std::vector<double> run(const PictureNetwork& net, const std::vector<const float*>& vectors,
                        const float* image, std::int64_t n, const std::vector<float*>& outs, int threads) {
  std::vector<double> seconds(net.steps.size(), 0.0);
  if (threads <= 0) threads = available_cpus();
  const Workspace workspace(workspace_floats(net));
  float* memory = workspace.data();
  float* const zeros = memory;
  std::fill_n(zeros, net.most_channels, 0.0f);
  memory += whole_cache_lines(net.most_channels);
  std::vector<float*> slots;
  for (const std::int64_t slot : net.slot_floats) {
    slots.push_back(memory);
    memory += whole_cache_lines(slot);
  }
  // One image after the other: all threads work on one, so a batch would only take more memory.
  for (std::int64_t i = 0; i < n; ++i) {
    Rows rows;
    for (std::size_t k = 0; k < vectors.size(); ++k) rows.push_back(vectors[k] + i * net.vector_widths[k]);
    const float* own = nullptr;
    if (image != nullptr) {
      const Picture& p = net.pictures[net.image];
      own = image + i * p.channels * p.pixels();
    }
    run_image(net, rows, own, zeros, slots.data(), threads, seconds);
    for (std::size_t k = 0; k < outs.size(); ++k) {
      const Picture& p = net.pictures[net.outputs[k]];
      write_out(net, p, slots.data(), outs[k] + i * p.channels * p.pixels(), threads);
    }
  }
  return seconds;
}

}  // namespace deep
}  // namespace cgnrt
