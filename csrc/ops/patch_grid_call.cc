#include "ops/patch_grid_call.h"

#include <algorithm>
#include <sstream>

#include "common/cpu.h"
#include "ops/checks.h"

namespace cgnrt {
namespace {

std::int32_t index_at(const Tensor& index, std::int64_t row, std::int64_t column, std::int64_t entries,
                      const char* name) {
  const std::int64_t value = integer_at(index, row * index.shape[1] + column);
  if (value < 0 || value >= entries) {
    const std::string rule = entries > 0 ? "0.." + std::to_string(entries - 1)
                                         : std::string("no row at all, since ") + name + " is empty";
    refuse("patch_grid index", "index[" + std::to_string(row) + ", " + std::to_string(column) + "]",
           std::to_string(value), rule);
  }
  return static_cast<std::int32_t>(value);
}

// Reads the index once, into memory of our own: what was checked is what is used, whoever writes meanwhile.
std::vector<MosaicItem> items_of(const PatchGridCall& call, std::int64_t n) {
  std::vector<MosaicItem> items(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    MosaicItem& item = items[static_cast<std::size_t>(i)];
    if (!call.index) {
      item.image = item.mask = item.background = static_cast<std::int32_t>(i);
    } else if (!call.over) {
      item.image = index_at(*call.index, i, 0, call.images.shape[0], "images");
    } else {
      item.mask = index_at(*call.index, i, 0, call.over->shape[0], "over's masks");
      item.image = index_at(*call.index, i, 1, call.images.shape[0], "images");
      item.background = index_at(*call.index, i, 2, call.grounds->shape[0], "over's backgrounds");
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

// Refuses a mask that has a value outside [0, 1]: such windows have no order.
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
std::vector<std::int64_t> places_of(const PatchGridCall& call, const std::vector<MosaicItem>& items) {
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
  args.threads = call.form.threads;
  if (call.form.implementation == "reference") {
    patch_windows_ref(args);
  } else {
    patch_windows_cpu(args, call.form.implementation == "auto" ? nullptr : call.form.implementation.c_str());
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

// Fills in the form, and runs.
void run(MosaicArgs& args, const MosaicForm& form, const Tensor& out) {
  const std::vector<float> scale = per_channel(form.scale, args.channels);
  const std::vector<float> bias = per_channel(form.bias, args.channels);
  const BicubicTaps down = bicubic_taps(args.rows * args.tile_height, form.height);
  const BicubicTaps across = bicubic_taps(args.columns * args.tile_width, form.width);
  args.down = down.axis();
  args.across = across.axis();
  args.scale = scale.empty() ? nullptr : scale.data();
  args.bias = bias.empty() ? nullptr : bias.data();
  args.clamp = form.clamp.has_value();
  if (form.clamp) {
    args.clamp_low = form.clamp->first;
    args.clamp_high = form.clamp->second;
  }
  args.out = out.data;
  args.output = form.output;
  args.layout = form.layout;
  args.threads = form.threads;
  if (form.implementation == "reference") {
    mosaic_ref(args);
  } else {
    mosaic_cpu(args, form.implementation == "auto" ? nullptr : form.implementation.c_str());
  }
}

void require_implementation(const std::string& name) {
  if (name != "reference") pick_isa(name == "auto" ? nullptr : name.c_str());
}

}  // namespace

void patch_grid(const PatchGridCall& call, const Tensor& out) {
  require_implementation(call.form.implementation);
  const std::vector<std::int64_t> shape = patch_grid_shape(call);
  require_patch_grid_out(call, out, shape);
  const std::vector<MosaicItem> items = items_of(call, shape[0]);
  const std::vector<std::int64_t> places = places_of(call, items);
  MosaicArgs args{};
  args.images = static_cast<const float*>(call.images.data);
  args.items = items.data();
  args.places = places.data();
  args.n = shape[0];
  args.channels = call.images.shape[1];
  args.height = call.images.shape[2];
  args.width = call.images.shape[3];
  args.rows = args.columns = call.grid;
  args.tile_height = args.tile_width = call.patch;
  if (call.over) {
    args.masks = static_cast<const float*>(call.over->data);
    args.backgrounds = static_cast<const float*>(call.grounds->data);
  }
  run(args, call.form, out);
}

void resize(const ResizeCall& call, const Tensor& out) {
  require_implementation(call.form.implementation);
  const std::vector<std::int64_t> shape = resize_shape(call);
  require_resize_out(call, out, shape);
  std::vector<MosaicItem> items(static_cast<std::size_t>(shape[0]));
  for (std::size_t i = 0; i < items.size(); ++i) items[i].image = static_cast<std::int32_t>(i);
  const std::vector<std::int64_t> places(items.size());
  MosaicArgs args{};
  args.images = static_cast<const float*>(call.images.data);
  args.items = items.data();
  args.places = places.data();
  args.n = shape[0];
  args.channels = call.images.shape[1];
  args.height = args.tile_height = call.images.shape[2];
  args.width = args.tile_width = call.images.shape[3];
  args.rows = args.columns = 1;
  run(args, call.form, out);
}

}  // namespace cgnrt
