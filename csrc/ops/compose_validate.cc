#include <algorithm>
#include <limits>

#include "common/cpu.h"
#include "ops/checks.h"
#include "ops/compose_call.h"

namespace cgnrt {
namespace {

void require_picture(const char* name, const Tensor& t, DType dtype, const std::string& rule) {
  const std::string subject = std::string("compose ") + name;
  if (t.dtype != DType::kFloat32 && t.dtype != DType::kFloat16) {
    refuse(subject, "dtype", t.dtype_name, "float32 or float16");
  }
  if (t.dtype != dtype)
    refuse(subject, "dtype", t.dtype_name, std::string("that of masks, ") + name_of(dtype));
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
  const auto require_same = [&](const char* name, const Tensor& t) {
    if (t.device.name != first.name) {
      refuse(std::string("compose ") + name, "device", t.device.name, "that of masks, " + first.name);
    }
  };
  require_same("foregrounds", call.foregrounds);
  require_same("backgrounds", call.backgrounds);
  if (call.index) require_same("index", *call.index);
  if (call.rolls) require_same("rolls", *call.rolls);
  if (first.kind != DeviceKind::kCpu) {
    refuse("compose masks", "device", first.name, "cpu",
           "This build has no kernel of compose for that device.");
  }
}

std::int32_t index_at(const Tensor& index, std::int64_t row, std::int64_t column, std::int64_t entries) {
  const std::int64_t value = integer_at(index, row * 3 + column);
  if (value < 0 || value >= entries) {
    static constexpr const char* kNames[] = {"masks", "foregrounds", "backgrounds"};
    const std::string rule = entries > 0
                                 ? "0.." + std::to_string(entries - 1)
                                 : std::string("no row at all, since ") + kNames[column] + " is empty";
    refuse("compose index", "index[" + std::to_string(row) + ", " + std::to_string(column) + "]",
           std::to_string(value), rule);
  }
  return static_cast<std::int32_t>(value);
}

std::int32_t offset_at(const Tensor& rolls, std::int64_t at, std::int64_t period) {
  const std::int64_t remainder = integer_at(rolls, at) % period;
  return static_cast<std::int32_t>(remainder < 0 ? remainder + period : remainder);
}

// Reads index and rolls once, into memory of our own: what was checked is what is used, whoever writes
// meanwhile.
std::vector<ComposeItem> items_of(const ComposeCall& call, std::int64_t n) {
  const std::int64_t height = call.masks.shape[2];
  const std::int64_t width = call.masks.shape[3];
  std::vector<ComposeItem> items(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    ComposeItem& item = items[static_cast<std::size_t>(i)];
    if (call.index) {
      item.mask = index_at(*call.index, i, 0, call.masks.shape[0]);
      item.foreground = index_at(*call.index, i, 1, call.foregrounds.shape[0]);
      item.background = index_at(*call.index, i, 2, call.backgrounds.shape[0]);
    } else {
      item.mask = item.foreground = item.background = static_cast<std::int32_t>(i);
    }
    if (call.rolls) {
      item.foreground_dy = offset_at(*call.rolls, i * 4, height);
      item.foreground_dx = offset_at(*call.rolls, i * 4 + 1, width);
      item.background_dy = offset_at(*call.rolls, i * 4 + 2, height);
      item.background_dx = offset_at(*call.rolls, i * 4 + 3, width);
    }
  }
  return items;
}

}  // namespace

std::vector<std::int64_t> compose_shape(const ComposeCall& call) {
  require_one_device(call);  // first: of a tensor elsewhere nothing else is known
  const DType dtype = call.masks.dtype;
  require_picture("masks", call.masks, dtype, "(M, 1, h, w)");
  const std::vector<std::int64_t>& m = call.masks.shape;
  if (m[1] != 1 || m[2] < 1 || m[3] < 1) refuse("compose masks", "shape", to_string(m), "(M, 1, h, w)");
  const std::string size = std::to_string(m[2]) + ", " + std::to_string(m[3]) + ") like masks";
  require_picture("foregrounds", call.foregrounds, dtype, "(F, c, " + size);
  const std::vector<std::int64_t>& f = call.foregrounds.shape;
  if (f[1] < 1 || f[2] != m[2] || f[3] != m[3]) {
    refuse("compose foregrounds", "shape", to_string(f), "(F, c, " + size);
  }
  const std::string channels = std::to_string(f[1]);
  require_picture("backgrounds", call.backgrounds, dtype, "(B, " + channels + ", " + size);
  const std::vector<std::int64_t>& b = call.backgrounds.shape;
  if (b[1] != f[1] || b[2] != m[2] || b[3] != m[3]) {
    refuse("compose backgrounds", "shape", to_string(b),
           "(B, " + channels + ", " + size + " and foregrounds");
  }
  require_channels("compose scale", call.scale, f[1]);
  require_channels("compose bias", call.bias, f[1]);
  require_clamp("compose clamp", call.clamp);
  if (call.threads < 0) refuse("compose threads", "threads", std::to_string(call.threads), ">= 0");
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
  if (call.layout == Layout::kNHWC) return {n, m[2], m[3], f[1]};
  return {n, f[1], m[2], m[3]};
}

void compose(const ComposeCall& call, const Tensor& out) {
  const std::vector<std::int64_t> shape = compose_shape(call);
  if (out.device.name != call.masks.device.name) {
    refuse("compose out", "device", out.device.name, "that of masks, " + call.masks.device.name);
  }
  require_out("compose out", out, call.output, shape);
  require_apart("compose", out, "masks", call.masks);
  require_apart("compose", out, "foregrounds", call.foregrounds);
  require_apart("compose", out, "backgrounds", call.backgrounds);
  if (call.index) require_apart("compose", out, "index", *call.index);
  if (call.rolls) require_apart("compose", out, "rolls", *call.rolls);
  const bool reference = call.implementation == "reference";
  const char* isa = call.implementation == "auto" ? nullptr : call.implementation.c_str();
  if (!reference) pick_isa(isa);

  const std::vector<ComposeItem> items = items_of(call, shape[0]);
  const std::vector<float> scale = per_channel(call.scale, call.foregrounds.shape[1]);
  const std::vector<float> bias = per_channel(call.bias, call.foregrounds.shape[1]);
  ComposeArgs args{};
  args.masks = call.masks.data;
  args.foregrounds = call.foregrounds.data;
  args.backgrounds = call.backgrounds.data;
  args.items = items.data();
  args.scale = scale.empty() ? nullptr : scale.data();
  args.bias = bias.empty() ? nullptr : bias.data();
  args.out = out.data;
  args.n = shape[0];
  args.channels = call.foregrounds.shape[1];
  args.height = call.masks.shape[2];
  args.width = call.masks.shape[3];
  args.input = call.masks.dtype;
  args.output = call.output;
  args.layout = call.layout;
  args.clamp = call.clamp.has_value();
  if (call.clamp) {
    args.clamp_low = call.clamp->first;
    args.clamp_high = call.clamp->second;
  }
  args.threads = call.threads;
  args.streaming = call.streaming;
  if (reference) {
    compose_ref(args);
  } else {
    compose_cpu(args, isa);
  }
}

}  // namespace cgnrt
