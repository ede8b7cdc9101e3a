// Grids of tiles, scaled bicubically, blended and written in one pass. A block makes a rectangle of one
// sample, all channels: the source rows that it needs are scaled across into shared memory, then down. Same
// operations in the same order as mosaic_ref.
#include "cuda/casts.cuh"
#include "cuda/launch.cuh"
#include "cuda/mosaic_rows.cuh"

namespace cgnrt {
namespace {

constexpr int kLeastRows = 8;  // with fewer, most rows of the source are scaled again for each block
constexpr int kQuad = 4;
constexpr std::int64_t kScaledBytes = 24 << 10;  // so that several blocks share a multiprocessor
constexpr std::int64_t kMaxGridY = 65535;        // of a launch

// How a result is written: pixel by pixel in any layout, or four neighbours at once, in planes or as pixels
// of three channels.
enum class Form { kSingle, kPlanes, kPixelsOfThree };

// Blocks for which a multiprocessor has registers: as many as leave none of a thread's values in memory.
template <Form form>
constexpr int kBlocks = form == Form::kPixelsOfThree ? 3 : 4;

template <int kPixels>
__device__ __forceinline__ void load_run(float (&to)[kPixels], const float* from) {
  if constexpr (kPixels == kQuad) {
    const float4 quad = __ldg(reinterpret_cast<const float4*>(from));
    to[0] = quad.x;
    to[1] = quad.y;
    to[2] = quad.z;
    to[3] = quad.w;
  } else {
    to[0] = __ldg(from);
  }
}

// Neighbouring pixels of one channel, from rows of shared memory.
template <int kPixels>
__device__ __forceinline__ void scale_down(float (&to)[kPixels], const float* from, int4 slots,
                                           float4 weights) {
  if constexpr (kPixels == kQuad) {
    const float4 a = *reinterpret_cast<const float4*>(from + slots.x);
    const float4 b = *reinterpret_cast<const float4*>(from + slots.y);
    const float4 c = *reinterpret_cast<const float4*>(from + slots.z);
    const float4 d = *reinterpret_cast<const float4*>(from + slots.w);
    to[0] = sum_of_taps(weights, a.x, b.x, c.x, d.x);
    to[1] = sum_of_taps(weights, a.y, b.y, c.y, d.y);
    to[2] = sum_of_taps(weights, a.z, b.z, c.z, d.z);
    to[3] = sum_of_taps(weights, a.w, b.w, c.w, d.w);
  } else {
    to[0] = sum_of_taps(weights, from[slots.x], from[slots.y], from[slots.z], from[slots.w]);
  }
}

template <DType output>
__device__ __forceinline__ void store_quad(void* out, std::int64_t at, const float (&values)[kQuad]) {
  Stored<output>* to = static_cast<Stored<output>*>(out) + at;
  constexpr int kWord = kPerWord<output>;
  if constexpr (kWord == 1) {
    __stcs(reinterpret_cast<float4*>(to), make_float4(values[0], values[1], values[2], values[3]));
  } else if constexpr (kWord == 2) {
    __stcs(reinterpret_cast<uint2*>(to),
           make_uint2(pack_word<output>(values), pack_word<output>(values + kWord)));
  } else {
    __stcs(reinterpret_cast<unsigned*>(to), static_cast<unsigned>(pack_word<output>(values)));
  }
}

// The pixels of one thread: their place in a plane, and what their channels share.
template <int kPixels>
struct Run {
  std::int64_t pixel;
  const float* scaled;  // of the first channel, at their column
  int4 slots;
  float4 weights;
  const float* background;  // of the first channel
  float mask[kPixels];
};

// One channel of them, ready to be cast.
template <int kPixels>
__device__ __forceinline__ void finish(const MosaicWork& work, const Run<kPixels>& run, int channel,
                                       float (&value)[kPixels]) {
  const PatchGridDeviceArgs& args = work.args;
  scale_down(value, run.scaled + channel * (work.slots * kMosaicColumns), run.slots, run.weights);
  if (args.blend_masks != nullptr) {
    float background[kPixels];
    load_run(background, run.background + channel * work.result_plane);
#pragma unroll
    for (int i = 0; i < kPixels; ++i) value[i] = blend(run.mask[i], value[i], background[i]);
  }
  if (args.clamp) {
#pragma unroll
    for (int i = 0; i < kPixels; ++i) value[i] = clamp_to(value[i], args.clamp_low, args.clamp_high);
  }
  if (args.has_scale) {
    const float scale = args.scale[channel];
#pragma unroll
    for (int i = 0; i < kPixels; ++i) value[i] = value[i] * scale;
  }
  if (args.has_bias) {
    const float bias = args.bias[channel];
#pragma unroll
    for (int i = 0; i < kPixels; ++i) value[i] = value[i] + bias;
  }
}

// Writes the values of each channel, which `value_of(channel, value)` computes.
template <DType output, Form form, int kPixels, typename ValueOf>
__device__ __forceinline__ void write(const MosaicWork& work, std::int64_t sample, std::int64_t pixel,
                                      const ValueOf& value_of) {
  const PatchGridDeviceArgs& args = work.args;
  const int channels = static_cast<int>(args.channels);
  if constexpr (form == Form::kPixelsOfThree) {
    constexpr int kThree = 3;
    float values[kThree][kQuad];
#pragma unroll
    for (int channel = 0; channel < kThree; ++channel) value_of(channel, values[channel]);
    const std::int64_t at = (sample * work.result_plane + pixel) * kThree;
#pragma unroll
    for (int quad = 0; quad < kThree; ++quad) {
      float mixed[kQuad];
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        mixed[i] = values[(quad * kQuad + i) % kThree][(quad * kQuad + i) / kThree];
      }
      store_quad<output>(args.out, at + quad * kQuad, mixed);
    }
  } else {
    const bool mixes = form == Form::kSingle && args.layout == Layout::kNHWC;
    const std::int64_t step = mixes ? 1 : work.result_plane;
    std::int64_t at = sample * channels * work.result_plane + (mixes ? pixel * channels : pixel);
#pragma unroll 1  // as in scale_across
    for (int channel = 0; channel < channels; ++channel) {
      float value[kPixels];
      value_of(channel, value);
      if constexpr (form == Form::kPlanes) {
        store_quad<output>(args.out, at, value);
      } else {
        store_pixel<output>(args.out, at, value[0]);
      }
      at += step;
    }
  }
}

template <DType output, Form form>
__global__ void __launch_bounds__(kMosaicThreads, kBlocks<form>)
    lay_mosaic(const __grid_constant__ MosaicWork work) {
  constexpr int kPixels = form == Form::kSingle ? 1 : kQuad;
  constexpr int kRuns = kMosaicColumns / kPixels;  // in a row
  __shared__ MosaicTaps taps;
  CGNRT_DYNAMIC_SHARED(float, scaled);
  const PatchGridDeviceArgs& args = work.args;
  int* places = reinterpret_cast<int*>(scaled + args.channels * work.slots * kMosaicColumns);
  const int x0 = static_cast<int>(blockIdx.x) % work.pieces * kMosaicColumns;
  const int y0 = static_cast<int>(blockIdx.x) / work.pieces * work.rows;
  const int rows = min(work.rows, static_cast<int>(args.result_height) - y0);
  const std::int64_t sample = static_cast<std::int64_t>(blockIdx.z) * gridDim.y + blockIdx.y;
  if (sample >= args.n) return;
  const int held = prepare(work, x0, y0, rows, taps);
  const Entries entries = entries_of(args, sample);
  const bool is_there = find_tiles(work, sample, entries, places);
  if (is_there) scale_across(work, taps, held, entries.source, places, scaled);
  __syncthreads();
  for (int at = static_cast<int>(threadIdx.x); at < rows * kRuns; at += kMosaicThreads) {
    const int row = at / kRuns;
    const int column = at % kRuns * kPixels;
    if (x0 + column >= args.result_width) continue;
    Run<kPixels> run;
    run.pixel = (y0 + row) * args.result_width + x0 + column;
    if (!is_there) {
      write<output, form, kPixels>(work, sample, run.pixel, [](int, float (&value)[kPixels]) {
#pragma unroll
        for (int i = 0; i < kPixels; ++i) value[i] = float_of(0x7fc00000u);  // NaN
      });
      continue;
    }
    run.scaled = scaled + column;
    run.slots = taps.slots[row];
    run.weights = taps.down[row];
    if (args.blend_masks != nullptr) {
      load_run(run.mask, args.blend_masks + entries.mask * work.result_plane + run.pixel);
      run.background =
          args.backgrounds + entries.background * (args.channels * work.result_plane) + run.pixel;
    }
    write<output, form, kPixels>(work, sample, run.pixel, [&](int channel, float (&value)[kPixels]) {
      finish(work, run, channel, value);
    });
  }
}

// How many rows of the source a block of `rows` holds at most: all between its first and last, or only those
// of the taps.
int slots_for(int rows, double scale) {
  const double between = scale * (rows - 1) + 7;
  return between < rows * kTaps ? static_cast<int>(between) : rows * kTaps;
}

Form form_of(const PatchGridDeviceArgs& args) {
  const bool quads = args.result_width % kQuad == 0 && is_aligned(args.blend_masks, 16) &&
                     is_aligned(args.backgrounds, 16) &&
                     is_aligned(args.out, kQuad * static_cast<std::int64_t>(size_of(args.output)));
  if (quads && (args.layout == Layout::kNCHW || args.channels == 1)) return Form::kPlanes;
  return quads && args.channels == 3 ? Form::kPixelsOfThree : Form::kSingle;
}

template <DType output>
void launch_form(const MosaicWork& work, Form form, dim3 grid, std::size_t shared, cudaStream_t stream) {
  const auto kernel = form == Form::kPlanes          ? lay_mosaic<output, Form::kPlanes>
                      : form == Form::kPixelsOfThree ? lay_mosaic<output, Form::kPixelsOfThree>
                                                     : lay_mosaic<output, Form::kSingle>;
  CGNRT_LAUNCH(kernel, grid, dim3(kMosaicThreads), shared, stream, work);
}

}  // namespace

void mosaic(const PatchGridDeviceArgs& args, const std::int32_t* places, cudaStream_t stream) {
  const bool tiled = places != nullptr;
  MosaicWork work{};
  work.args = args;
  work.places = places;
  work.by_sample = tiled && window_lists(args).by_sample;
  work.tile_height = static_cast<int>(tiled ? args.patch : args.height);
  work.tile_width = static_cast<int>(tiled ? args.patch : args.width);
  work.tile_columns = tiled ? static_cast<int>(args.grid) : 1;
  work.source_height = work.tile_height * work.tile_columns;
  work.source_width = work.tile_width * work.tile_columns;
  work.down = bicubic_scale(work.source_height, args.result_height);
  work.across = bicubic_scale(work.source_width, args.result_width);
  work.plane = args.height * args.width;
  work.result_plane = args.result_height * args.result_width;
  const auto scaled_bytes = [&](int rows) {
    return args.channels * slots_for(rows, work.down) * kMosaicColumns *
           static_cast<std::int64_t>(sizeof(float));
  };
  work.pieces = static_cast<int>((args.result_width + kMosaicColumns - 1) / kMosaicColumns);
  const auto bands_of = [&](int rows) { return (args.result_height + rows - 1) / rows; };
  work.rows = kMosaicMaxRows;
  while (work.rows > 1 && scaled_bytes(work.rows) > kScaledBytes) work.rows /= 2;
  // A small batch in smaller blocks, as long as some processors have none.
  const std::int64_t resident = persistent_blocks(std::int64_t{1} << 62, kMosaicThreads);
  while (work.rows > kLeastRows && args.n * work.pieces * bands_of(work.rows) < resident) work.rows /= 2;
  work.slots = slots_for(work.rows, work.down);
  const std::int64_t bands = bands_of(work.rows);
  const dim3 grid(static_cast<unsigned>(work.pieces * bands),
                  static_cast<unsigned>(args.n < kMaxGridY ? args.n : kMaxGridY),
                  static_cast<unsigned>((args.n + kMaxGridY - 1) / kMaxGridY));
  const std::size_t shared = static_cast<std::size_t>(scaled_bytes(work.rows)) +
                             static_cast<std::size_t>(work.tile_columns * work.tile_columns) * sizeof(int);
  with_output(args.output,
              [&](auto output) { launch_form<output.value>(work, form_of(args), grid, shared, stream); });
}

}  // namespace cgnrt
