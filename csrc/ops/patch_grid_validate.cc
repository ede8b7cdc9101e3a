#include <algorithm>
#include <limits>
#include <sstream>

#include "common/cpu.h"
#include "ops/checks.h"
#include "ops/patch_grid_call.h"

namespace cgnrt {
namespace {

void require_cpu(const std::string& subject, const Tensor& t) {
  if (t.device.kind != DeviceKind::kCpu) {
    refuse(subject, "device", t.device.name, "cpu", "This build has no kernel of it for that device.");
  }
}

// (any, channels, height, width) float32; 0 channels or extents: any number from 1 on.
void require_picture(const std::string& subject, const Tensor& t, std::int64_t channels, std::int64_t height,
                     std::int64_t width, const std::string& rule) {
  require_cpu(subject, t);  // first: of a tensor elsewhere nothing else is known
  if (t.dtype != DType::kFloat32) refuse(subject, "dtype", t.dtype_name, "float32");
  const auto fits = [](std::int64_t got, std::int64_t wanted) {
    return wanted == 0 ? got >= 1 : got == wanted;
  };
  if (t.shape.size() != 4 || !fits(t.shape[1], channels) || !fits(t.shape[2], height) ||
      !fits(t.shape[3], width)) {
    refuse(subject, "shape", to_string(t.shape), rule);
  }
  for (const std::int64_t extent : t.shape) {
    if (extent > std::numeric_limits<std::int32_t>::max()) {
      refuse(subject, "shape", to_string(t.shape), "extents below 2^31");
    }
  }
  require_plain(subject, t);
}

std::string sides(std::int64_t height, std::int64_t width) {
  return std::to_string(height) + ", " + std::to_string(width) + ")";
}

void require_form(const std::string& operation, const MosaicForm& form, std::int64_t channels) {
  require_channels(operation + " scale", form.scale, channels);
  require_channels(operation + " bias", form.bias, channels);
  require_clamp(operation + " clamp", form.clamp);
}

std::vector<std::int64_t> shape_of(const MosaicForm& form, std::int64_t n, std::int64_t channels) {
  if (form.layout == Layout::kNHWC) return {n, form.height, form.width, channels};
  return {n, channels, form.height, form.width};
}

void require_within(const char* name, std::int64_t value, std::int64_t low, std::int64_t high,
                    const char* what) {
  if (value < low || value > high) {
    refuse(std::string("patch_grid ") + name, name, std::to_string(value),
           std::to_string(low) + ".." + std::to_string(high) + what);
  }
}

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

std::vector<std::int64_t> patch_grid_shape(const PatchGridCall& call) {
  require_picture("patch_grid masks", call.masks, 1, 0, 0, "(S, 1, h, w)");
  const std::vector<std::int64_t>& m = call.masks.shape;
  require_picture("patch_grid images", call.images, 0, m[2], m[3],
                  "(S, c, " + sides(m[2], m[3]) + " like masks");
  const std::vector<std::int64_t>& s = call.images.shape;
  if (s[0] != m[0]) {
    refuse("patch_grid images", "length", std::to_string(s[0]), std::to_string(m[0]) + ", as many as masks");
  }
  require_within("patch", call.patch, 1, std::min({kMaxPatch, m[2], m[3]}), " (within a mask)");
  require_within("grid", call.grid, 1, 64, "");
  const std::int64_t windows = (m[2] - call.patch + 1) * (m[3] - call.patch + 1);
  require_within("top", call.top, 1,
                 std::min<std::int64_t>(windows, std::numeric_limits<std::int32_t>::max()),
                 " (the windows of a mask)");
  require_cpu("patch_grid picks", call.picks);
  require_rows("patch_grid picks", call.picks, {call.grid * call.grid}, "(n, grid * grid)");
  const std::int64_t n = call.picks.shape[0];
  if (call.over) {
    const std::string size = sides(call.form.height, call.form.width) + " like the result";
    require_picture("patch_grid over's masks", *call.over, 1, call.form.height, call.form.width,
                    "(M, 1, " + size);
    require_picture("patch_grid over's backgrounds", *call.grounds, s[1], call.form.height, call.form.width,
                    "(B, " + std::to_string(s[1]) + ", " + size);
  }
  if (call.index) {
    require_cpu("patch_grid index", *call.index);
    require_rows("patch_grid index", *call.index, {call.over ? 3 : 1},
                 call.over ? "(n, 3), since over is given" : "(n, 1), since over is None");
    if (call.index->shape[0] != n) {
      refuse("patch_grid index", "length", std::to_string(call.index->shape[0]),
             std::to_string(n) + ", one row for each of picks");
    }
  } else {
    const std::string alike = std::to_string(n) + " as in picks, since index is None";
    if (s[0] != n) refuse("patch_grid images", "length", std::to_string(s[0]), alike);
    if (call.over && call.over->shape[0] != n) {
      refuse("patch_grid over's masks", "length", std::to_string(call.over->shape[0]), alike);
    }
    if (call.over && call.grounds->shape[0] != n) {
      refuse("patch_grid over's backgrounds", "length", std::to_string(call.grounds->shape[0]), alike);
    }
  }
  require_form("patch_grid", call.form, s[1]);
  require_implementation(call.form.implementation);
  return shape_of(call.form, n, s[1]);
}

std::vector<std::int64_t> resize_shape(const ResizeCall& call) {
  require_picture("resize images", call.images, 0, 0, 0, "(n, c, h, w)");
  require_form("resize", call.form, call.images.shape[1]);
  require_implementation(call.form.implementation);
  return shape_of(call.form, call.images.shape[0], call.images.shape[1]);
}

void patch_grid(const PatchGridCall& call, const Tensor& out) {
  const std::vector<std::int64_t> shape = patch_grid_shape(call);
  require_cpu("patch_grid out", out);
  require_out("patch_grid out", out, call.form.output, shape);
  require_apart("patch_grid", out, "masks", call.masks);
  require_apart("patch_grid", out, "images", call.images);
  require_apart("patch_grid", out, "picks", call.picks);
  if (call.index) require_apart("patch_grid", out, "index", *call.index);
  if (call.over) require_apart("patch_grid", out, "over's masks", *call.over);
  if (call.over) require_apart("patch_grid", out, "over's backgrounds", *call.grounds);
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
  const std::vector<std::int64_t> shape = resize_shape(call);
  require_cpu("resize out", out);
  require_out("resize out", out, call.form.output, shape);
  require_apart("resize", out, "images", call.images);
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
