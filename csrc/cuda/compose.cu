// One pass over memory. A warp composes a segment: `rounds` times 32 neighbouring units of one sample, a unit
// being the pixels that make a vector of 16 bytes, in the input or the output, whichever is larger. So index
// and rolls are decoded once for a segment, every access of a warp is one run of memory, and a thread has the
// vectors of the mask and of all channels in flight at once.
//
// A rolled row is a torus of whole units: a unit of the result lies in two neighbouring units of the row, the
// first one follows the last, and the offset into them is the same for the whole sample. Both are read
// aligned, the second from the first-level cache, where a neighbour's load has put it, and then shifted.
// Unaligned scalar loads would take `pixels` times the requests.
//
// If width or addresses allow no vectors, a unit is one pixel. Pools of different dtypes become float32 as
// they are read, whatever each is: a dtype more than one would multiply the kernels.
#include <algorithm>
#include <cstdint>

#include "cuda/compose.cuh"
#include "cuda/compose_units.cuh"
#include "cuda/launch.cuh"
#include "cuda/pixel_vectors.cuh"
#include "ops/compose.h"

namespace cgnrt {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 4;  // of a block
constexpr int kThreads = kWarps * kWarp;
constexpr int kMaxRounds = 8;
constexpr std::int64_t kWaves =
    16;  // times the blocks that fill the device, at most; then warps take several segments

// Planes of their own, or single pixels anywhere.
template <typename F>
__device__ __forceinline__ void store_planes(const Division& d, typename F::Out* out, int channel,
                                             std::int64_t unit,
                                             const float (&values)[F::kChannels][F::kValues]) {
#pragma unroll
  for (int c = 0; c < F::kChannels; ++c) {
    typename F::Out* plane = out + (channel + c) * d.channel_stride;
    if constexpr (F::kPixels == 1) {
      store_pixel<F::kOut>(plane, unit * d.pixel_stride, values[c][0]);
    } else {
      std::uint32_t words[F::kStored];
      pack_words<F::kOut, F::kStored>(values[c], words);
      stream_words<F::kStored>(plane + unit * F::kPixels, words);
    }
  }
}

// A warp's units, `count` of them from `out` on, as pixels of all channels. Through shared memory, so that
// the warp writes one run: from registers it would be every third piece.
template <typename F>
__device__ __forceinline__ void store_interleaved(std::uint32_t* staged, typename F::Out* out, int lane,
                                                  int count,
                                                  const float (&values)[F::kChannels][F::kValues]) {
  if (lane < count) {
    float mixed[F::kChannels * F::kPixels];
#pragma unroll
    for (int p = 0; p < F::kPixels; ++p) {
#pragma unroll
      for (int c = 0; c < F::kChannels; ++c) mixed[p * F::kChannels + c] = values[c][p];
    }
    std::uint32_t words[F::kStored];
    pack_words<F::kOut, F::kStored>(mixed, words);
    stage_words<F::kStored>(staged + lane * F::kStored, words);
  }
  __syncwarp();
  const int vectors = count * F::kStored / 4;
#pragma unroll
  for (int at = 0; at < (kWarp * F::kStored + 4 * kWarp - 1) / (4 * kWarp); ++at) {
    const int vector = at * kWarp + lane;
    if (vector < vectors)
      __stcs(reinterpret_cast<uint4*>(out) + vector, reinterpret_cast<uint4*>(staged)[vector]);
  }
  __syncwarp();
}

template <typename F>
__device__ __forceinline__ void compose_segment(const ComposeDeviceArgs& a, const Division& d,
                                                const ComposeDeviceItem& item, const Sources<F>& from,
                                                std::int64_t first, int lane, std::uint32_t* staged) {
  const int channels = F::kChannels > 1 ? F::kChannels : static_cast<int>(a.channels);
  const float nan = float_of(0x7fc00000u);
  std::uint32_t row = 0, column = 0;
  if constexpr (F::kRolls) {
    const std::int64_t whole = quotient(first + lane, d.columns);
    row = static_cast<std::uint32_t>(whole);
    column = static_cast<std::uint32_t>(first + lane - whole * d.columns);
  }
  for (int round = 0; round < d.rounds; ++round) {
    const std::int64_t start = first + round * kWarp;
    if (start >= d.units) return;
    const int count = d.units - start < kWarp ? static_cast<int>(d.units - start) : kWarp;
    const std::int64_t unit = start + lane;
    Places foreground_at{unit * F::kPixels, 0}, background_at = foreground_at;
    if constexpr (F::kRolls) {
      foreground_at = places_of(a, d, item.foreground_shift, row, column, F::kPixels);
      background_at = places_of(a, d, item.background_shift, row, column, F::kPixels);
      row += d.step_rows;
      column += d.step_columns;
      if (column >= d.columns) {
        column -= static_cast<std::uint32_t>(d.columns);
        ++row;
      }
    }
    std::uint32_t mask[F::kWords] = {};
    const bool reads = item.is_there && lane < count;
    if (reads) load_unit<F>(mask, from.mask + unit * F::kPixels, mask_bytes());
    for (int channel = 0; channel < channels; channel += F::kChannels) {
      float values[F::kChannels][F::kValues];
      if (reads) {
        compose_unit<F>(a, item, from, mask, channel, foreground_at, background_at, values);
      } else {
        fill<F>(nan, values);
      }
      finish<F>(a, channel, values);
      if constexpr (F::kInterleaves) {
        store_interleaved<F>(staged, from.out + start * F::kPixels * F::kChannels, lane, count, values);
      } else {
        if (lane < count) store_planes<F>(d, from.out, channel, unit, values);
      }
    }
  }
}

template <typename F>
__global__ void __launch_bounds__(kThreads)
    compose_kernel(const __grid_constant__ ComposeDeviceArgs a, const __grid_constant__ Division d) {
  __shared__ __align__(16) std::uint32_t staged[kWarps][F::kInterleaves ? kWarp * F::kStored : 4];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t plane = a.height * a.width;
  const std::int64_t segments = a.n * d.segments;
  for (std::int64_t segment = std::int64_t{blockIdx.x} * kWarps + warp; segment < segments;
       segment += std::int64_t{gridDim.x} * kWarps) {
    const std::int64_t sample = quotient(segment, d.segments);
    const ComposeDeviceItem item = item_of<F::kPixels, F::kRolls>(a, sample);
    const Sources<F> from{plane_of<F>(a.masks) + item.mask * plane,
                          plane_of<F>(a.foregrounds) + item.foreground * a.channels * plane,
                          plane_of<F>(a.backgrounds) + item.background * a.channels * plane,
                          static_cast<typename F::Out*>(a.out) + sample * a.channels * plane};
    const std::int64_t first = (segment - sample * d.segments) * d.rounds * kWarp;
    compose_segment<F>(a, d, item, from, first, lane, staged[warp]);
  }
}

template <typename F>
void launch_form(const ComposeDeviceArgs& a, cudaStream_t stream) {
  const std::int64_t plane = a.height * a.width;
  Division d{};
  d.units = plane / F::kPixels;
  d.columns = a.width / F::kPixels;
  d.rounds = kMaxRounds;
  const auto segments_of = [&](int rounds) { return (d.units + rounds * kWarp - 1) / (rounds * kWarp); };
  const std::int64_t resident = persistent_blocks(std::int64_t{1} << 62, kThreads);
  // A small batch in shorter segments, as long as some processors have none.
  while (d.rounds > 1 && segments_of(d.rounds) < (resident * kWarps + a.n - 1) / a.n) d.rounds /= 2;
  d.segments = segments_of(d.rounds);
  if (d.columns > 0) {
    d.step_rows = static_cast<std::uint32_t>(kWarp / d.columns);
    d.step_columns = static_cast<std::uint32_t>(kWarp % d.columns);
  }
  const bool planes = a.layout == Layout::kNCHW;
  d.channel_stride = planes ? plane : 1;
  d.pixel_stride = planes ? 1 : a.channels;
  const std::int64_t blocks = std::min((a.n * d.segments + kWarps - 1) / kWarps, kWaves * resident);
  CGNRT_LAUNCH(compose_kernel<F>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, a, d);
}

// Whether every unit of so many pixels of all pools can be read as one.
template <int pixels, bool rolls>
bool reads_units(const ComposeDeviceArgs& a) {
  const auto aligned = [](const ComposePool& pool) {
    return is_aligned(pool.data, pixels * static_cast<int>(size_of(pool.dtype)));
  };
  return (rolls ? a.width : a.height * a.width) % pixels == 0 && aligned(a.masks) && aligned(a.foregrounds) &&
         aligned(a.backgrounds);
}

template <DType out, bool rolls>
void launch_mixed(const ComposeDeviceArgs& a, cudaStream_t stream) {
  constexpr int pixels = 4;
  const bool planes = a.layout == Layout::kNCHW || a.channels == 1;
  if (planes && reads_units<pixels, rolls>(a) && is_aligned(a.out, pixels * sizeof(Stored<out>))) {
    return launch_form<Form<DType::kFloat32, out, pixels, 1, rolls, false, true>>(a, stream);
  }
  launch_form<Form<DType::kFloat32, out, 1, 1, rolls, false, true>>(a, stream);
}

template <DType in, DType out, bool rolls>
void launch_dtypes(const ComposeDeviceArgs& a, cudaStream_t stream) {
  constexpr int in_bytes = sizeof(Stored<in>), out_bytes = sizeof(Stored<out>);
  constexpr int pixels = 16 / (in_bytes > out_bytes ? in_bytes : out_bytes);
  const std::int64_t plane = a.height * a.width;
  const bool units = reads_units<pixels, rolls>(a);
  if (units && (a.layout == Layout::kNCHW || a.channels == 1) && is_aligned(a.out, pixels * out_bytes)) {
    if (a.channels == 3) return launch_form<Form<in, out, pixels, 3, rolls, false>>(a, stream);
    return launch_form<Form<in, out, pixels, 1, rolls, false>>(a, stream);
  }
  if (units && a.layout == Layout::kNHWC && a.channels == 3 && is_aligned(a.out, 16) &&
      plane * 3 * out_bytes % 16 == 0) {
    return launch_form<Form<in, out, pixels, 3, rolls, true>>(a, stream);
  }
  launch_form<Form<in, out, 1, 1, rolls, false>>(a, stream);
}

template <DType out, bool rolls>
void launch(const ComposeDeviceArgs& a, cudaStream_t stream) {
  const DType input = a.masks.dtype;
  if (a.foregrounds.dtype != input || a.backgrounds.dtype != input)
    return launch_mixed<out, rolls>(a, stream);
  if (input == DType::kUInt8) return launch_dtypes<DType::kUInt8, out, rolls>(a, stream);
  if (input == DType::kFloat16) return launch_dtypes<DType::kFloat16, out, rolls>(a, stream);
  launch_dtypes<DType::kFloat32, out, rolls>(a, stream);
}

ComposeDeviceArgs device_args(const ComposeCall& call, const DeviceFinish& finish, const Tensor& out) {
  ComposeDeviceArgs args{};
  static_cast<DeviceFinish&>(args) = finish;
  args.masks = {call.masks.data, call.masks.dtype};
  args.foregrounds = {call.foregrounds.data, call.foregrounds.dtype};
  args.backgrounds = {call.backgrounds.data, call.backgrounds.dtype};
  if (call.index) {
    args.index = call.index->data;
    args.index_is_wide = call.index->dtype == DType::kInt64;
  }
  if (call.rolls) {
    args.rolls = call.rolls->data;
    args.rolls_are_wide = call.rolls->dtype == DType::kInt64;
  }
  if (call.place) args.place = static_cast<const float*>(call.place->data);
  args.masks_count = call.masks.shape[0];
  args.foregrounds_count = call.foregrounds.shape[0];
  args.backgrounds_count = call.backgrounds.shape[0];
  args.out = out.data;
  args.n = call.shape[0];
  args.channels = call.foregrounds.shape[1];
  args.height = call.masks.shape[2];
  args.width = call.masks.shape[3];
  return args;
}

}  // namespace

void compose(const ComposeCall& call, const Tensor& out) {
  const DeviceFinish finish = device_finish("compose foregrounds", call.form, call.foregrounds.shape[1]);
  require_compose_out(call, out);
  const ComposeDeviceArgs args = device_args(call, finish, out);
  if (args.n == 0) return;
  const auto stream = static_cast<cudaStream_t>(call.target.stream);
  if (args.place != nullptr) return compose_placed(args, stream);
  with_output(args.output, [&](auto output) {
    constexpr DType out_type = decltype(output)::value;
    args.rolls != nullptr ? launch<out_type, true>(args, stream) : launch<out_type, false>(args, stream);
  });
}

}  // namespace cgnrt
