// patch_grid and resize on the CPU: check the values of tensors, choose the implementation, and divide the
// work among threads.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <sstream>
#include <vector>

#include "common/cpu.h"
#include "common/thread_pool.h"
#include "ops/patch_grid.h"

namespace cgnrt {
namespace {

// One more thread is woken for each this many pixels of masks, or values of results (some 100 us of work).
constexpr std::int64_t kPixelsPerThread = 16 << 10;
constexpr std::int64_t kValuesPerThread = 128 << 10;
constexpr std::int64_t kValuesPerTask = 64 << 10;

constexpr int kBinBits = 12;

int threads_for(int asked, std::int64_t work, std::int64_t per_thread, std::int64_t tasks) {
  const std::int64_t wanted = asked != 0 ? asked : cpus_for(work / per_thread);
  return static_cast<int>(std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(1, tasks)));
}

// Runs body(task, worker) for each task, worker below `threads`. The memory of a task is allocated
// for each worker beforehand, since a body must not throw.
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
// leaves only the windows of the last bin that is needed, and of the bins above it, to be sorted.
void select(Selection& s, std::int64_t highest, std::int64_t top) {
  int shift = 0;
  while ((highest >> shift) >> kBinBits != 0) ++shift;
  std::fill(s.bins.begin(), s.bins.end(), 0);
  // A mask that another thread writes to now could give any sum.
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

void rank_windows(const WindowArgs& a, Isa isa, int asked) {
  const PatchGridKernel& kernel = CGNRT_PICK_VARIANT(kPatchGrid, isa);
  const std::int64_t across = a.width - a.patch + 1;
  const std::int64_t windows = (a.height - a.patch + 1) * across;
  const std::int64_t highest = (a.patch * a.patch) << kFixedPointBits;
  const int threads = threads_for(asked, a.count * a.height * a.width, kPixelsPerThread, a.count);
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
    kernel.window_sums(a.masks + a.sources[i] * a.height * a.width, a.height, a.width, a.patch,
                       s.columns.data(), s.prefix.data(), s.sums.data());
    select(s, highest, a.top);
    for (std::int64_t k = 0; k < a.top; ++k) {
      const std::int64_t window = s.found[static_cast<std::size_t>(k)];
      a.places[i * a.top + k] = window / across * a.width + window % across;
    }
  });
}

void lay_mosaic(const MosaicArgs& a, Isa isa, int asked) {
  const PatchGridKernel& kernel = CGNRT_PICK_VARIANT(kPatchGrid, isa);
  const std::int64_t height = a.down.length;
  const std::int64_t width = a.across.length;
  const std::int64_t values = a.n * a.channels * height * width;
  if (values == 0) return;
  // Whole samples if they are small, else bands of rows: neighbouring bands scale a few rows twice.
  const std::int64_t rows = std::clamp<std::int64_t>(kValuesPerTask / (a.channels * width), 1, height);
  const std::int64_t bands = (height + rows - 1) / rows;
  const std::int64_t tasks = a.n * bands;
  const int threads = threads_for(asked, values, kValuesPerThread, tasks);
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
    kernel.mosaic_rows(a, sample, first, std::min(height, first + rows), scratch);
  });
}

// Reads the index once, into memory of our own: another thread that writes to it cannot change what was
// checked.
std::vector<MosaicItem> items_of(const PatchGridCall& call, std::int64_t n) {
  std::vector<MosaicItem> items(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    MosaicItem& item = items[static_cast<std::size_t>(i)];
    if (!call.index) {
      item.image = item.mask = item.background = static_cast<std::int32_t>(i);
    } else if (!call.over) {
      item.image = entry_at("patch_grid", *call.index, i, 0, call.images.shape[0], "images");
    } else {
      item.mask = entry_at("patch_grid", *call.index, i, 0, call.over->shape[0], "over's masks");
      item.image = entry_at("patch_grid", *call.index, i, 1, call.images.shape[0], "images");
      item.background =
          entry_at("patch_grid", *call.index, i, 2, call.grounds->shape[0], "over's backgrounds");
    }
  }
  return items;
}

std::vector<std::int32_t> picks_of(const PatchGridCall& call) {
  std::vector<std::int32_t> picks(static_cast<std::size_t>(call.picks.count()));
  for (std::size_t i = 0; i < picks.size(); ++i) {
    const std::int64_t pick = integer_at(call.picks, static_cast<std::int64_t>(i));
    if (pick < 0 || pick >= call.top) {
      const std::int64_t row = static_cast<std::int64_t>(i) / call.picks.shape[1];
      const std::int64_t column = static_cast<std::int64_t>(i) % call.picks.shape[1];
      refuse("patch_grid picks", "picks[" + std::to_string(row) + ", " + std::to_string(column) + "]",
             std::to_string(pick), "0.." + std::to_string(call.top - 1) + " (below top)");
    }
    picks[i] = static_cast<std::int32_t>(pick);
  }
  return picks;
}

// Refuses a mask with a value outside [0, 1]: its windows have no order.
void require_mask(const Tensor& masks, std::int32_t entry) {
  const std::int64_t plane = masks.shape[2] * masks.shape[3];
  const float* mask = static_cast<const float*>(masks.data) + entry * plane;
  const auto good = [](float value) { return value >= 0.0f && value <= 1.0f; };
  bool all = true;
  for (std::int64_t at = 0; at < plane; ++at) all = all & good(mask[at]);
  if (all) return;
  const std::int64_t at = std::find_if_not(mask, mask + plane, good) - mask;
  std::ostringstream where, got;
  where << "masks[" << entry << ", 0, " << at / masks.shape[3] << ", " << at % masks.shape[3] << "]";
  got << mask[std::min(at, plane - 1)];
  refuse("patch_grid masks", where.str(), got.str(), "0..1");
}

// The places of the tiles of each sample: its picks among the best windows of its source.
std::vector<std::int64_t> places_of(const PatchGridCall& call, std::optional<Isa> isa,
                                    const std::vector<MosaicItem>& items) {
  const std::vector<std::int32_t> picks = picks_of(call);
  std::vector<std::int32_t> sources;
  for (const MosaicItem& item : items) sources.push_back(item.image);
  std::sort(sources.begin(), sources.end());
  sources.erase(std::unique(sources.begin(), sources.end()), sources.end());
  for (const std::int32_t source : sources) require_mask(call.masks, source);
  std::vector<std::int64_t> best(sources.size() * static_cast<std::size_t>(call.top));
  WindowArgs args{};
  args.masks = static_cast<const float*>(call.masks.data);
  args.sources = sources.data();
  args.count = static_cast<std::int64_t>(sources.size());
  args.height = call.masks.shape[2];
  args.width = call.masks.shape[3];
  args.patch = call.patch;
  args.top = call.top;
  args.places = best.data();
  if (isa) {
    rank_windows(args, *isa, call.target.threads);
  } else {
    patch_windows_ref(args);
  }
  const std::size_t tiles = static_cast<std::size_t>(call.grid * call.grid);
  std::vector<std::int64_t> places(picks.size());
  for (std::size_t i = 0; i < picks.size(); ++i) {
    const auto source =
        std::lower_bound(sources.begin(), sources.end(), items[i / tiles].image) - sources.begin();
    places[i] = best[static_cast<std::size_t>(source) * static_cast<std::size_t>(call.top) +
                     static_cast<std::size_t>(picks[i])];
  }
  return places;
}

// An axis with its memory.
struct BicubicTaps {
  BicubicTaps(std::int64_t from, std::int64_t to) : source(from) {
    const double scale = bicubic_scale(from, to);
    for (std::int64_t x = 0; x < to; ++x) {
      const BicubicTap tap = bicubic_tap(from, scale, x);
      firsts.push_back(tap.first);
      weights.insert(weights.end(), tap.weights, tap.weights + kTaps);
    }
  }
  Axis axis() const {
    return {source, static_cast<std::int64_t>(firsts.size()), firsts.data(), weights.data()};
  }
  std::int64_t source;
  std::vector<std::int32_t> firsts;
  std::vector<float> weights;
};

// Runs the second step of a checked call with these tiles.
void run_mosaic(MosaicArgs& args, const ResizeCall& call, std::optional<Isa> isa, const Tensor& out) {
  args.images = static_cast<const float*>(call.images.data);
  args.n = call.shape[0];
  args.channels = call.images.shape[1];
  args.height = call.images.shape[2];
  args.width = call.images.shape[3];
  const PixelForm form = for_each_channel(call.form, args.channels);
  static_cast<PixelFinish&>(args) = finish_of(form);
  const BicubicTaps down(args.rows * args.tile_height, call.height);
  const BicubicTaps across(args.columns * args.tile_width, call.width);
  args.down = down.axis();
  args.across = across.axis();
  args.out = out.data;
  if (isa) {
    lay_mosaic(args, *isa, call.target.threads);
  } else {
    mosaic_ref(args);
  }
}

}  // namespace

void patch_grid(const PatchGridCall& call, const Tensor& out) {
  require_patch_grid_out(call, out);
  const std::optional<Isa> isa = pick_implementation(call.target.implementation);
  const std::vector<MosaicItem> items = items_of(call, call.shape[0]);
  const std::vector<std::int64_t> places = places_of(call, isa, items);
  MosaicArgs args{};
  args.items = items.data();
  args.places = places.data();
  args.rows = args.columns = call.grid;
  args.tile_height = args.tile_width = call.patch;
  if (call.over) {
    args.masks = static_cast<const float*>(call.over->data);
    args.backgrounds = static_cast<const float*>(call.grounds->data);
  }
  run_mosaic(args, call, isa, out);
}

void resize(const ResizeCall& call, const Tensor& out) {
  require_resize_out(call, out);
  const std::optional<Isa> isa = pick_implementation(call.target.implementation);
  std::vector<MosaicItem> items(static_cast<std::size_t>(call.shape[0]));
  for (std::size_t i = 0; i < items.size(); ++i) items[i].image = static_cast<std::int32_t>(i);
  const std::vector<std::int64_t> places(items.size());
  MosaicArgs args{};
  args.items = items.data();
  args.places = places.data();
  args.rows = args.columns = 1;
  args.tile_height = call.images.shape[2];
  args.tile_width = call.images.shape[3];
  run_mosaic(args, call, isa, out);
}

}  // namespace cgnrt
