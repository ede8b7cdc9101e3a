#include "ops/compose_call.h"

#include <algorithm>

#include "common/cpu.h"
#include "ops/checks.h"

namespace cgnrt {
namespace {

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

void compose(const ComposeCall& call, const Tensor& out) {
  const std::vector<std::int64_t> shape = compose_shape(call);
  require_compose_out(call, out, shape);
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
