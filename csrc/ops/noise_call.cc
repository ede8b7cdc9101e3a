#include "common/cpu.h"
#include "ops/noise.h"

namespace cgnrt {

void noise(const NoiseCall& call, const Tensor& out) {
  const std::vector<std::int64_t> shape = noise_shape(call);
  require_noise_out(call, out, shape);
  const bool reference = call.implementation == "reference";
  const char* isa = call.implementation == "auto" ? nullptr : call.implementation.c_str();
  if (!reference) pick_isa(isa);

  std::vector<std::uint32_t> bounds = call.bounds;
  if (bounds.size() == 1) bounds.resize(static_cast<std::size_t>(call.size), bounds[0]);
  NoiseArgs args{};
  args.kind = call.kind;
  args.seed = call.seed;
  args.indices = static_cast<const std::int64_t*>(call.indices.data);
  args.n = shape[0];
  args.slot = call.slot;
  args.size = call.size;
  args.bounds = bounds.data();
  args.out = out.data;
  if (reference) {
    noise_ref(args);
  } else {
    noise_cpu(args, isa);
  }
}

}  // namespace cgnrt
