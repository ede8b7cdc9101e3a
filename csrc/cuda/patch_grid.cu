#include "cuda/patch_grid.cuh"

namespace cgnrt {
namespace {

// What both ops have in common; `subject` is their images. Refuses what a GPU cannot take.
PatchGridDeviceArgs device_args(const std::string& subject, const ResizeCall& call) {
  const std::vector<std::int64_t>& s = call.images.shape;
  if (s[2] * s[3] > kMaxDevicePixels) {
    refuse(subject, "shape", to_string(s), "at most 2^30 pixels in a picture on a GPU");
  }
  PatchGridDeviceArgs args{};
  static_cast<DeviceFinish&>(args) = device_finish(subject, call.form, s[1]);
  args.images = static_cast<const float*>(call.images.data);
  args.sources = s[0];
  args.n = call.shape[0];
  args.channels = s[1];
  args.height = s[2];
  args.width = s[3];
  args.result_height = call.height;
  args.result_width = call.width;
  return args;
}

void set_tiles(PatchGridDeviceArgs& args, const PatchGridCall& call) {
  args.masks = static_cast<const float*>(call.masks.data);
  args.picks = call.picks.data;
  args.picks_are_wide = call.picks.dtype == DType::kInt64;
  if (call.index) {
    args.index = call.index->data;
    args.index_is_wide = call.index->dtype == DType::kInt64;
  }
  args.patch = call.patch;
  args.grid = call.grid;
  args.top = call.top;
  if (call.over) {
    args.blend_masks = static_cast<const float*>(call.over->data);
    args.backgrounds = static_cast<const float*>(call.grounds->data);
    args.blend_masks_count = call.over->shape[0];
    args.backgrounds_count = call.grounds->shape[0];
  }
}

}  // namespace

void patch_grid(const PatchGridCall& call, const Tensor& out) {
  PatchGridDeviceArgs args = device_args("patch_grid images", call);
  require_patch_grid_out(call, out);
  args.out = out.data;
  set_tiles(args, call);
  if (args.n == 0) return;
  const auto stream = static_cast<cudaStream_t>(call.target.stream);
  // The places, rounded so that what follows is aligned.
  const std::int64_t places_bytes =
      (window_lists(args).count * args.top * static_cast<std::int64_t>(sizeof(std::int32_t)) + 15) / 16 * 16;
  void* const scratch = call.target.scratch(places_bytes + rank_scratch_bytes(args));
  const auto places = static_cast<std::int32_t*>(scratch);
  rank_windows(args, places, static_cast<unsigned char*>(scratch) + places_bytes, stream);
  mosaic(args, places, stream);
}

void resize(const ResizeCall& call, const Tensor& out) {
  PatchGridDeviceArgs args = device_args("resize images", call);
  require_resize_out(call, out);
  args.out = out.data;
  if (args.n > 0) mosaic(args, nullptr, static_cast<cudaStream_t>(call.target.stream));
}

}  // namespace cgnrt
