// The best windows of masks: sums by a summed-area pass in exact integers, then the highest keys by a radix
// selection. A key is a window's sum above its place counted from the end: keys differ, and their order is
// that of the ranks.
#include "cuda/launch.cuh"
#include "cuda/patch_grid.cuh"

namespace cgnrt {
namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kWarp = 32;
constexpr int kSumThreads = 256;
constexpr int kSumWarps = kSumThreads / kWarp;
constexpr int kSumBlocks = 4;  // for which a multiprocessor has registers: more, and values go to memory
constexpr int kSumColumns = 2 * kSumThreads;  // of a mask, at once: more than kMaxPatch
constexpr int kRankThreads = 1024;
constexpr int kDigitBits = 8;
constexpr int kBins = 1 << kDigitBits;
constexpr std::int64_t kSharedKeysBytes = 32 << 10;
// Lists beyond this much scratch are ranked after each other.
constexpr std::int64_t kScratchBytes = std::int64_t{256} << 20;
constexpr std::int64_t kMaxGridY = 65535;

static_assert(kSumColumns > kMaxPatch, "a block must hold a window");

// The sums of windows up to this side fit 32 bits, and their keys 64.
constexpr std::int64_t kNarrowPatch = 15;
static_assert((kNarrowPatch * kNarrowPatch) << kFixedPointBits < std::int64_t{1} << 32, "sums overflow");

struct Narrow {
  using Sum = std::uint32_t;
  using Key = std::uint64_t;
};
struct Wide {
  using Sum = std::uint64_t;
  using Key = unsigned __int128;
};

// How masks are cut into windows.
struct WindowShape {
  int height;
  int width;
  int patch;
  int across;  // windows in a row
  int down;
  int windows;
  int bands;         // of rows of windows, one for each block
  int band_rows;     // a multiple of kSumWarps
  int pieces;        // of a row of windows
  int piece_across;  // windows in a piece
  int place_bits;    // of a key
  int key_bits;
  unsigned padded_top;  // a power of two
  bool keys_are_shared;
};

int bits_for(std::int64_t highest) {
  int bits = 0;
  while (highest >> bits != 0) ++bits;
  return bits;
}

std::int64_t key_bytes(const PatchGridDeviceArgs& args) {
  return args.patch <= kNarrowPatch ? sizeof(Narrow::Key) : sizeof(Wide::Key);
}

std::int64_t sum_bytes(const PatchGridDeviceArgs& args) {
  return args.patch <= kNarrowPatch ? sizeof(Narrow::Sum) : sizeof(Wide::Sum);
}

WindowShape shape_of(const PatchGridDeviceArgs& args) {
  WindowShape s{};
  s.height = static_cast<int>(args.height);
  s.width = static_cast<int>(args.width);
  s.patch = static_cast<int>(args.patch);
  s.across = s.width - s.patch + 1;
  s.down = s.height - s.patch + 1;
  s.windows = s.across * s.down;
  // Bands share patch - 1 rows with the next.
  s.band_rows = s.patch <= 32 ? 32 : 256;
  s.bands = (s.down + s.band_rows - 1) / s.band_rows;
  s.piece_across = s.across < kSumColumns - s.patch + 1 ? s.across : kSumColumns - s.patch + 1;
  s.pieces = (s.across + s.piece_across - 1) / s.piece_across;
  s.place_bits = bits_for(s.windows - 1);
  s.key_bits = bits_for((args.patch * args.patch) << kFixedPointBits) + s.place_bits;
  s.padded_top = 1u << bits_for(args.top - 1);
  s.keys_are_shared = s.padded_top * key_bytes(args) <= kSharedKeysBytes;
  return s;
}

// Scratch of one list: its sums, and its keys where they do not fit shared memory.
std::int64_t sums_bytes(const PatchGridDeviceArgs& args, const WindowShape& s) {
  return (s.windows * sum_bytes(args) + 15) / 16 * 16;
}

std::int64_t list_bytes(const PatchGridDeviceArgs& args, const WindowShape& s) {
  return sums_bytes(args, s) + (s.keys_are_shared ? 0 : s.padded_top * key_bytes(args));
}

// How many lists are ranked at once.
std::int64_t lists_at_once(const PatchGridDeviceArgs& args, const WindowShape& s) {
  const std::int64_t most = kScratchBytes / list_bytes(args, s);
  const std::int64_t lists = window_lists(args).count;
  return most < 1 ? 1 : most < lists ? most : lists;
}

// Some of the lists.
struct WindowWork {
  PatchGridDeviceArgs args;
  WindowShape shape;
  std::int64_t first;
  int count;
  bool by_sample;
  std::int64_t sums_bytes;  // from one list to the next
  std::int64_t keys_bytes;
  unsigned char* sums;
  unsigned char* keys;
  std::int32_t* places;  // of all lists
};

__device__ __forceinline__ std::int64_t source_of(const WindowWork& work, int list) {
  const std::int64_t at = work.first + list;
  return work.by_sample ? entry_of(work.args, at, Pool::kSources) : at;
}

// Turns a row's columns[1..count] into their running sums, columns[0] being 0.
template <typename Sum>
__device__ __forceinline__ void scan_row(Sum* columns, int count, int lane) {
  Sum before = 0;
  if (lane == 0) columns[0] = 0;
  for (int first = 0; first < count; first += kWarp) {
    const int x = first + lane;
    Sum sum = x < count ? columns[x + 1] : 0;
#pragma unroll
    for (int by = 1; by < kWarp; by *= 2) {
      const Sum lower = __shfl_up_sync(kAll, sum, static_cast<unsigned>(by));
      if (lane >= by) sum += lower;
    }
    sum += before;
    if (x < count) columns[x + 1] = sum;
    before = __shfl_sync(kAll, sum, kWarp - 1);
  }
  __syncwarp();
}

// A block's threads own columns of a mask, whose sums slide down its rows; a warp then scans a row of them.
template <typename Sum>
__global__ void __launch_bounds__(kSumThreads, kSumBlocks)
    sum_windows(const __grid_constant__ WindowWork work) {
  __shared__ Sum rows[kSumWarps][kSumColumns + 1];
  constexpr int kOwned = kSumColumns / kSumThreads;
  const WindowShape& s = work.shape;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp;
  const int lane = thread % kWarp;
  const int x0 = static_cast<int>(blockIdx.x) % s.pieces * s.piece_across;
  const int y0 = static_cast<int>(blockIdx.x) / s.pieces * s.band_rows;
  const int across = min(s.piece_across, s.across - x0);
  const int columns = across + s.patch - 1;
  const int y1 = min(y0 + s.band_rows, s.down);
  for (int list = static_cast<int>(blockIdx.y); list < work.count; list += static_cast<int>(gridDim.y)) {
    const std::int64_t source = source_of(work, list);
    if (source < 0) continue;
    const float* mask = work.args.masks + source * (s.height * s.width) + x0;
    Sum* sums = reinterpret_cast<Sum*>(work.sums + list * work.sums_bytes);
    std::uint32_t owned[kOwned] = {};
#pragma unroll 4
    for (int y = y0; y < y0 + s.patch - 1; ++y) {
#pragma unroll
      for (int i = 0; i < kOwned; ++i) {
        const int x = thread + i * kSumThreads;
        if (x < columns) owned[i] += fixed_point(__ldg(mask + y * s.width + x));
      }
    }
    for (int y = y0; y < y1; y += kSumWarps) {
#pragma unroll
      for (int i = 0; i < kOwned; ++i) {
        const int x = thread + i * kSumThreads;
        if (x >= columns) continue;
        const float* column = mask + y * s.width + x;
#pragma unroll
        for (int row = 0; row < kSumWarps; ++row) {
          if (y + row < y1) {
            owned[i] += fixed_point(__ldg(column + (row + s.patch - 1) * s.width));
            rows[row][x + 1] = owned[i];
            owned[i] -= fixed_point(__ldg(column + row * s.width));
          }
        }
      }
      __syncthreads();
      if (y + warp < y1) {
        scan_row(rows[warp], columns, lane);
        Sum* to = sums + (y + warp) * s.across + x0;
        for (int x = lane; x < across; x += kWarp) to[x] = rows[warp][x + s.patch] - rows[warp][x];
      }
      __syncthreads();
    }
  }
}

// Where the selection stands: of the keys whose high bits are those of `least` the best `wanted` are chosen,
// and all above.
template <typename Key>
struct Selection {
  Key least;
  unsigned wanted;
  bool is_done;
};

// One warp adds up the bins from the top until they hold `wanted` keys.
template <typename Key>
__device__ __forceinline__ void choose_bin(const unsigned* bins, int shift, int lane,
                                           Selection<Key>& selection) {
  constexpr int kOwned = kBins / kWarp;
  const unsigned wanted = selection.wanted;
  const int top = kBins - 1 - lane * kOwned;
  unsigned owned = 0;
#pragma unroll
  for (int i = 0; i < kOwned; ++i) owned += bins[top - i];
  unsigned above = owned;
#pragma unroll
  for (int by = 1; by < kWarp; by *= 2) {
    const unsigned lower = __shfl_up_sync(kAll, above, static_cast<unsigned>(by));
    if (lane >= by) above += lower;
  }
  above -= owned;
  __syncwarp();  // all have read what one of them now writes
  if (above >= wanted || above + owned < wanted) return;
  int bin = top;
  while (above + bins[bin] < wanted) above += bins[bin--];
  selection.least |= static_cast<Key>(bin) << shift;
  selection.wanted = wanted - above;
  // All of the bin, or a single key, is chosen: its lower digits no longer matter.
  selection.is_done = bins[bin] == wanted - above;
}

// Sorts a power of two of keys in falling order, and synchronises the block.
template <typename Key>
__device__ __forceinline__ void sort_keys(Key* keys, unsigned count) {
  for (unsigned run = 2; run != 0 && run <= count; run *= 2) {
    for (unsigned step = run / 2; step > 0; step /= 2) {
      __syncthreads();
      for (unsigned pair = threadIdx.x; pair < count / 2; pair += blockDim.x) {
        const unsigned low = 2 * pair - (pair & (step - 1));
        const Key first = keys[low], second = keys[low + step];
        const bool falls = (low & run) == 0;
        if ((first < second) == falls) {
          keys[low] = second;
          keys[low + step] = first;
        }
      }
    }
  }
  __syncthreads();
}

template <typename Numbers>
__global__ void __launch_bounds__(kRankThreads, 1) rank_sums(const __grid_constant__ WindowWork work) {
  using Sum = typename Numbers::Sum;
  using Key = typename Numbers::Key;
  CGNRT_DYNAMIC_SHARED(Key, shared_keys);
  __shared__ unsigned bins[kBins];
  __shared__ Selection<Key> selection;
  __shared__ unsigned found;
  const WindowShape& s = work.shape;
  const int thread = static_cast<int>(threadIdx.x);
  const unsigned top = static_cast<unsigned>(work.args.top);
  for (int list = static_cast<int>(blockIdx.x); list < work.count; list += static_cast<int>(gridDim.x)) {
    if (source_of(work, list) < 0) continue;
    const Sum* sums = reinterpret_cast<const Sum*>(work.sums + list * work.sums_bytes);
    Key* keys = s.keys_are_shared ? shared_keys : reinterpret_cast<Key*>(work.keys + list * work.keys_bytes);
    const auto key_of = [&](int window) {
      return static_cast<Key>(sums[window]) << s.place_bits | static_cast<Key>(s.windows - 1 - window);
    };
    if (thread == 0) {
      selection = {0, top, false};
      found = 0;
    }
    for (int shift = s.key_bits;;) {
      const int above = shift;
      shift = shift > kDigitBits ? shift - kDigitBits : 0;
      const unsigned digit = (1u << (above - shift)) - 1;
      for (int bin = thread; bin < kBins; bin += kRankThreads) bins[bin] = 0;
      __syncthreads();
      const Key prefix = selection.least >> above;
#pragma unroll 4
      for (int window = thread; window < s.windows; window += kRankThreads) {
        const Key key = key_of(window);
        if (key >> above == prefix) atomicAdd(&bins[static_cast<unsigned>(key >> shift) & digit], 1u);
      }
      __syncthreads();
      if (thread < kWarp) choose_bin(bins, shift, thread, selection);
      __syncthreads();
      if (selection.is_done) break;
    }
    const Key least = selection.least;
#pragma unroll 4
    for (int window = thread; window < s.windows; window += kRankThreads) {
      const Key key = key_of(window);
      if (key >= least) keys[atomicAdd(&found, 1u)] = key;
    }
    for (unsigned at = top + threadIdx.x; at < s.padded_top; at += kRankThreads) keys[at] = 0;
    sort_keys(keys, s.padded_top);
    std::int32_t* places = work.places + (work.first + list) * work.args.top;
    for (unsigned rank = threadIdx.x; rank < top; rank += kRankThreads) {
      const auto from_end = static_cast<std::int64_t>(keys[rank] & ((Key{1} << s.place_bits) - 1));
      const int window = s.windows - 1 - static_cast<int>(from_end);
      places[rank] = window / s.across * s.width + window % s.across;
    }
    __syncthreads();  // the next list's keys come into the same memory
  }
}

template <typename Numbers>
void rank(const WindowWork& work, cudaStream_t stream) {
  const WindowShape& s = work.shape;
  const auto lists = static_cast<unsigned>(work.count);
  const dim3 grid(static_cast<unsigned>(s.bands) * static_cast<unsigned>(s.pieces),
                  work.count < kMaxGridY ? lists : static_cast<unsigned>(kMaxGridY));
  CGNRT_LAUNCH(sum_windows<typename Numbers::Sum>, grid, dim3(kSumThreads), 0, stream, work);
  const std::size_t shared = s.keys_are_shared ? s.padded_top * sizeof(typename Numbers::Key) : 0;
  CGNRT_LAUNCH(rank_sums<Numbers>, dim3(lists), dim3(kRankThreads), shared, stream, work);
}

}  // namespace

std::int64_t rank_scratch_bytes(const PatchGridDeviceArgs& args) {
  const WindowShape s = shape_of(args);
  return lists_at_once(args, s) * list_bytes(args, s);
}

void rank_windows(const PatchGridDeviceArgs& args, std::int32_t* places, void* scratch, cudaStream_t stream) {
  WindowWork work{};
  work.args = args;
  work.shape = shape_of(args);
  const WindowLists lists = window_lists(args);
  const std::int64_t at_once = lists_at_once(args, work.shape);
  work.by_sample = lists.by_sample;
  work.sums_bytes = sums_bytes(args, work.shape);
  work.keys_bytes = list_bytes(args, work.shape) - work.sums_bytes;
  work.sums = static_cast<unsigned char*>(scratch);
  work.keys = work.sums + at_once * work.sums_bytes;
  work.places = places;
  for (work.first = 0; work.first < lists.count; work.first += at_once) {
    const std::int64_t left = lists.count - work.first;
    work.count = static_cast<int>(left < at_once ? left : at_once);
    if (args.patch <= kNarrowPatch) {
      rank<Narrow>(work, stream);
    } else {
      rank<Wide>(work, stream);
    }
  }
}

}  // namespace cgnrt
