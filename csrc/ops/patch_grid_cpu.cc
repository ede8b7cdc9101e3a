#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "common/cpu.h"
#include "common/thread_pool.h"
#include "ops/patch_grid.h"
#include "ops/patch_grid_kernel.h"

namespace cgnrt {
namespace {

// A thread is worth waking for this many pixels of masks, or values of results (some 100 us of work).
constexpr std::int64_t kPixelsPerThread = 16 << 10;
constexpr std::int64_t kValuesPerThread = 128 << 10;
constexpr std::int64_t kValuesPerTask = 64 << 10;

constexpr int kBinBits = 12;

const PatchGridKernels& kernels_for(Isa isa) {
  switch (isa) {
#if defined(CGNRT_HAVE_X86_VARIANTS)
    case Isa::kX86V4:
      return x86_v4::patch_grid_kernels;
    case Isa::kX86V3:
      return x86_v3::patch_grid_kernels;
#endif
    default:
      return baseline::patch_grid_kernels;
  }
}

int threads_for(int asked, std::int64_t work, std::int64_t per_thread, std::int64_t tasks) {
  const std::int64_t wanted =
      asked != 0 ? asked : std::min<std::int64_t>(available_cpus(), work / per_thread);
  return static_cast<int>(std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(1, tasks)));
}

// Runs body(task, worker) for each task, worker below `threads`: what a task needs is allocated for each
// worker beforehand, since a body must not throw.
template <typename Body>
void for_each_task(std::int64_t tasks, int threads, const Body& body) {
  std::atomic<std::int64_t> next{0};
  parallel_for(threads, threads, [&](std::int64_t worker) {
    for (std::int64_t task = next++; task < tasks; task = next++)
      body(task, static_cast<std::size_t>(worker));
  });
}

struct Selection {
  std::vector<std::uint32_t> columns;
  std::vector<std::uint64_t> prefix;
  std::vector<std::uint64_t> sums;
  std::vector<std::int64_t> bins;
  std::vector<std::int64_t> found;  // windows, by their number
};

// The numbers of the `top` best windows, in order, at the beginning of `found`. A histogram of the sums
// leaves only the windows of the last bin that is needed, and of those above it, to be sorted.
void select(Selection& s, std::int64_t highest, std::int64_t top) {
  int shift = 0;
  while ((highest >> shift) >> kBinBits != 0) ++shift;
  std::fill(s.bins.begin(), s.bins.end(), 0);
  // A mask that somebody writes to meanwhile could give any sum.
  const std::uint64_t last_bin = s.bins.size() - 1;
  for (const std::uint64_t sum : s.sums) ++s.bins[static_cast<std::size_t>(std::min(sum >> shift, last_bin))];
  std::int64_t above = 0;
  std::size_t bin = s.bins.size();
  while (above < top) above += s.bins[--bin];
  const std::uint64_t least = static_cast<std::uint64_t>(bin) << shift;
  s.found.clear();
  for (std::size_t k = 0; k < s.sums.size(); ++k) {
    if (s.sums[k] >= least) s.found.push_back(static_cast<std::int64_t>(k));
  }
  const auto better = [&](std::int64_t p, std::int64_t q) {
    const std::uint64_t a = s.sums[static_cast<std::size_t>(p)], b = s.sums[static_cast<std::size_t>(q)];
    return a != b ? a > b : p < q;
  };
  if (static_cast<std::int64_t>(s.found.size()) > top) {
    std::nth_element(s.found.begin(), s.found.begin() + top, s.found.end(), better);
  }
  std::sort(s.found.begin(), s.found.begin() + top, better);
}

}  // namespace

void patch_windows_cpu(const WindowArgs& a, const char* isa) {
  const PatchGridKernels& kernels = kernels_for(pick_isa(isa));
  const std::int64_t across = a.width - a.patch + 1;
  const std::int64_t windows = (a.height - a.patch + 1) * across;
  const std::int64_t highest = (a.patch * a.patch) << kFixedPointBits;
  const int threads = threads_for(a.threads, a.count * a.height * a.width, kPixelsPerThread, a.count);
  std::vector<Selection> selections(static_cast<std::size_t>(threads));
  for (Selection& s : selections) {
    s.columns.resize(static_cast<std::size_t>(a.width));
    s.prefix.resize(static_cast<std::size_t>(a.width) + 1);
    s.sums.resize(static_cast<std::size_t>(windows));
    s.bins.resize(std::size_t{1} << kBinBits);
    s.found.reserve(static_cast<std::size_t>(windows));
  }
  for_each_task(a.count, threads, [&](std::int64_t i, std::size_t worker) {
    Selection& s = selections[worker];
    kernels.window_sums(a.masks + a.sources[i] * a.height * a.width, a.height, a.width, a.patch,
                        s.columns.data(), s.prefix.data(), s.sums.data());
    select(s, highest, a.top);
    for (std::int64_t k = 0; k < a.top; ++k) {
      const std::int64_t window = s.found[static_cast<std::size_t>(k)];
      a.places[i * a.top + k] = window / across * a.width + window % across;
    }
  });
}

void mosaic_cpu(const MosaicArgs& a, const char* isa) {
  const PatchGridKernels& kernels = kernels_for(pick_isa(isa));
  const std::int64_t height = a.down.length;
  const std::int64_t width = a.across.length;
  const std::int64_t values = a.n * a.channels * height * width;
  if (values == 0) return;
  // Whole samples where they are small, else bands of rows: neighbours scale a few rows twice.
  const std::int64_t rows = std::clamp<std::int64_t>(kValuesPerTask / (a.channels * width), 1, height);
  const std::int64_t bands = (height + rows - 1) / rows;
  const std::int64_t tasks = a.n * bands;
  const int threads = threads_for(a.threads, values, kValuesPerThread, tasks);
  const std::size_t row_floats = static_cast<std::size_t>(a.columns * a.tile_width + 2 * kPadding);
  const std::size_t held = static_cast<std::size_t>(a.channels * kTaps);
  const std::size_t worker_floats = row_floats + (held + 2) * static_cast<std::size_t>(width);
  std::vector<float> floats(worker_floats * static_cast<std::size_t>(threads));
  std::vector<std::int64_t> which(held * static_cast<std::size_t>(threads));
  for_each_task(tasks, threads, [&](std::int64_t task, std::size_t worker) {
    MosaicScratch scratch{};
    scratch.row = floats.data() + worker * worker_floats;
    scratch.scaled = scratch.row + row_floats;
    scratch.line = scratch.scaled + held * static_cast<std::size_t>(width);
    scratch.bytes = reinterpret_cast<unsigned char*>(scratch.line + width);
    scratch.held = which.data() + worker * held;
    const std::int64_t sample = task / bands;
    const std::int64_t first = task % bands * rows;
    kernels.mosaic_rows(a, sample, first, std::min(height, first + rows), scratch);
  });
}

}  // namespace cgnrt
