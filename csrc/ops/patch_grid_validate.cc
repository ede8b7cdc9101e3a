#include <algorithm>
#include <limits>

#include "ops/patch_grid.h"

namespace cgnrt {
namespace {

// (any, channels, height, width) float32; 0 channels or extents: any number from 1 on.
void require_picture(const std::string& subject, const Tensor& t, const Device& device, std::int64_t channels,
                     std::int64_t height, std::int64_t width, const std::string& rule) {
  require_device(subject, t, device);
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

void require_within(const char* name, std::int64_t value, std::int64_t low, std::int64_t high,
                    const char* what) {
  if (value < low || value > high) {
    refuse(std::string("patch_grid ") + name, name, std::to_string(value),
           std::to_string(low) + ".." + std::to_string(high) + what);
  }
}

}  // namespace

void check_patch_grid(PatchGridCall& call) {
  require_picture("patch_grid masks", call.masks, call.target.device, 1, 0, 0, "(S, 1, h, w)");
  const std::vector<std::int64_t>& m = call.masks.shape;
  require_picture("patch_grid images", call.images, call.target.device, 0, m[2], m[3],
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
  require_device("patch_grid picks", call.picks, call.target.device);
  require_rows("patch_grid picks", call.picks, {call.grid * call.grid}, "(n, grid * grid)");
  const std::int64_t n = call.picks.shape[0];
  if (call.over) {
    const std::string size = sides(call.height, call.width) + " like the result";
    require_picture("patch_grid over's masks", *call.over, call.target.device, 1, call.height, call.width,
                    "(M, 1, " + size);
    require_picture("patch_grid over's backgrounds", *call.grounds, call.target.device, s[1], call.height,
                    call.width, "(B, " + std::to_string(s[1]) + ", " + size);
  }
  if (call.index) {
    require_device("patch_grid index", *call.index, call.target.device);
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
  call.shape = batch_shape(call.form, n, s[1], call.height, call.width);
}

void check_resize(ResizeCall& call) {
  require_picture("resize images", call.images, call.target.device, 0, 0, 0, "(n, c, h, w)");
  require_form("resize", call.form, call.images.shape[1]);
  call.shape = batch_shape(call.form, call.images.shape[0], call.images.shape[1], call.height, call.width);
}

void require_patch_grid_out(const PatchGridCall& call, const Tensor& out) {
  require_device("patch_grid out", out, call.target.device);
  require_out("patch_grid out", out, call.form.output, call.shape);
  require_apart("patch_grid", out, "masks", call.masks);
  require_apart("patch_grid", out, "images", call.images);
  require_apart("patch_grid", out, "picks", call.picks);
  if (call.index) require_apart("patch_grid", out, "index", *call.index);
  if (call.over) require_apart("patch_grid", out, "over's masks", *call.over);
  if (call.over) require_apart("patch_grid", out, "over's backgrounds", *call.grounds);
}

void require_resize_out(const ResizeCall& call, const Tensor& out) {
  require_device("resize out", out, call.target.device);
  require_out("resize out", out, call.form.output, call.shape);
  require_apart("resize", out, "images", call.images);
}

}  // namespace cgnrt
