#include "cuda/patch_grid.cuh"

namespace cgnrt {
namespace {

// Of the places, rounded so that what follows is aligned.
std::int64_t places_bytes(const PatchGridDeviceArgs& args) {
  return (window_lists(args).count * args.top * static_cast<std::int64_t>(sizeof(std::int32_t)) + 15) / 16 *
         16;
}

}  // namespace

std::int64_t patch_grid_scratch_bytes(const PatchGridDeviceArgs& args) {
  return args.masks == nullptr ? 0 : places_bytes(args) + rank_scratch_bytes(args);
}

void patch_grid_cuda(const PatchGridDeviceArgs& args, void* scratch, cudaStream_t stream) {
  if (args.n == 0) return;
  if (args.masks == nullptr) return mosaic(args, nullptr, stream);
  std::int32_t* places = static_cast<std::int32_t*>(scratch);
  rank_windows(args, places, static_cast<unsigned char*>(scratch) + places_bytes(args), stream);
  mosaic(args, places, stream);
}

}  // namespace cgnrt
