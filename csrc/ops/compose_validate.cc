#include <limits>

#include "ops/compose.h"

namespace cgnrt {
namespace {

void require_picture(const char* name, const Tensor& t, const std::string& rule) {
  const std::string subject = std::string("compose ") + name;
  if (t.dtype != DType::kFloat32 && t.dtype != DType::kFloat16 && t.dtype != DType::kUInt8) {
    refuse(subject, "dtype", t.dtype_name, "float32, float16 or uint8");
  }
  if (t.shape.size() != 4) refuse(subject, "shape", to_string(t.shape), rule);
  for (const std::int64_t extent : t.shape) {
    if (extent > std::numeric_limits<std::int32_t>::max()) {
      refuse(subject, "shape", to_string(t.shape), "extents below 2^31");
    }
  }
  require_plain(subject, t);
}

void require_one_device(const ComposeCall& call) {
  const Device& first = call.masks.device;
  require_device("compose masks", call.masks, call.target.device);
  const auto require_same = [&](const char* name, const Tensor& t) {
    if (t.device.name != first.name) {
      refuse(std::string("compose ") + name, "device", t.device.name, "that of masks, " + first.name);
    }
  };
  require_same("foregrounds", call.foregrounds);
  require_same("backgrounds", call.backgrounds);
  if (call.index) require_same("index", *call.index);
  if (call.rolls) require_same("rolls", *call.rolls);
  if (call.place) require_same("place", *call.place);
}

void require_place(const Tensor& place, std::int64_t n, const std::vector<std::int64_t>& masks) {
  const std::string subject = "compose place";
  if (place.dtype != DType::kFloat32) refuse(subject, "dtype", place.dtype_name, "float32");
  if (place.shape.size() != 2 || place.shape[1] != kPlaceNumbers) {
    refuse(subject, "shape", to_string(place.shape), "(n, 4)", "Its columns are dy, dx, scale and flip.");
  }
  if (place.shape[0] != n) refuse(subject, "length", std::to_string(place.shape[0]), std::to_string(n));
  if (masks[2] > kMaxPlacedExtent || masks[3] > kMaxPlacedExtent) {
    refuse("compose masks", "shape", to_string(masks), "at most 2^22 rows and columns beside a place");
  }
  require_plain(subject, place);
}

}  // namespace

void check_compose(ComposeCall& call) {
  require_one_device(call);
  require_picture("masks", call.masks, "(M, 1, h, w)");
  const std::vector<std::int64_t>& m = call.masks.shape;
  if (m[1] != 1 || m[2] < 1 || m[3] < 1) refuse("compose masks", "shape", to_string(m), "(M, 1, h, w)");
  const std::string size = std::to_string(m[2]) + ", " + std::to_string(m[3]) + ") like masks";
  require_picture("foregrounds", call.foregrounds, "(F, c, " + size);
  const std::vector<std::int64_t>& f = call.foregrounds.shape;
  if (f[1] < 1 || f[2] != m[2] || f[3] != m[3]) {
    refuse("compose foregrounds", "shape", to_string(f), "(F, c, " + size);
  }
  const std::string channels = std::to_string(f[1]);
  require_picture("backgrounds", call.backgrounds, "(B, " + channels + ", " + size);
  const std::vector<std::int64_t>& b = call.backgrounds.shape;
  if (b[1] != f[1] || b[2] != m[2] || b[3] != m[3]) {
    refuse("compose backgrounds", "shape", to_string(b),
           "(B, " + channels + ", " + size + " and foregrounds");
  }
  require_form("compose", call.form, f[1]);
  std::int64_t n = m[0];
  if (call.index) {
    require_rows("compose index", *call.index, {3}, "(n, 3)");
    n = call.index->shape[0];
  } else {
    const std::string alike = std::to_string(n) + " as in masks, since index is None";
    if (f[0] != n) refuse("compose foregrounds", "length", std::to_string(f[0]), alike);
    if (b[0] != n) refuse("compose backgrounds", "length", std::to_string(b[0]), alike);
  }
  if (call.rolls) {
    require_rows("compose rolls", *call.rolls, {2, 2}, "(n, 2, 2)");
    if (call.rolls->shape[0] != n) {
      refuse("compose rolls", "length", std::to_string(call.rolls->shape[0]), std::to_string(n));
    }
  }
  if (call.place) require_place(*call.place, n, m);
  call.shape = batch_shape(call.form, n, f[1], m[2], m[3]);
}

void require_compose_out(const ComposeCall& call, const Tensor& out) {
  if (out.device.name != call.masks.device.name) {
    refuse("compose out", "device", out.device.name, "that of masks, " + call.masks.device.name);
  }
  require_out("compose out", out, call.form.output, call.shape);
  require_apart("compose", out, "masks", call.masks);
  require_apart("compose", out, "foregrounds", call.foregrounds);
  require_apart("compose", out, "backgrounds", call.backgrounds);
  if (call.index) require_apart("compose", out, "index", *call.index);
  if (call.rolls) require_apart("compose", out, "rolls", *call.rolls);
  if (call.place) require_apart("compose", out, "place", *call.place);
}

}  // namespace cgnrt
