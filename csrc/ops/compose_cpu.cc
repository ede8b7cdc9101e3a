// compose on the CPU: checks index, rolls and places, chooses the implementation, and divides the work among
// threads.
#include <algorithm>
#include <cstdint>
#include <sstream>

#include "common/cpu.h"
#include "common/thread_pool.h"
#include "ops/compose.h"

namespace cgnrt {
namespace {

// One more thread is woken for each this many bytes read and written (some 100 us of work).
constexpr std::int64_t kBytesPerThread = 1 << 20;
// Size of a task: small enough that a slow thread delays the others little.
constexpr std::int64_t kBytesPerTask = 2 << 20;

// A larger batch would not stay in the cache until it is read. Half of the cache that a group of cores
// commonly shares: what the system reports of its caches depends on the virtual machine more than on the
// hardware.
constexpr std::int64_t kCachedBytes = 16 << 20;

std::int32_t offset_at(const Tensor& rolls, std::int64_t at, std::int64_t period) {
  const std::int64_t remainder = integer_at(rolls, at) % period;
  return static_cast<std::int32_t>(remainder < 0 ? remainder + period : remainder);
}

Roll roll_at(const Tensor& rolls, std::int64_t at, std::int64_t height, std::int64_t width) {
  return {offset_at(rolls, at, height), offset_at(rolls, at + 1, width)};
}

// Reads index and rolls once, into memory of our own: another thread that writes to them cannot change what
// was checked.
std::vector<ComposeItem> items_of(const ComposeCall& call, std::int64_t n) {
  const std::int64_t height = call.masks.shape[2];
  const std::int64_t width = call.masks.shape[3];
  std::vector<ComposeItem> items(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    ComposeItem& item = items[static_cast<std::size_t>(i)];
    if (call.index) {
      item.mask = entry_at("compose", *call.index, i, 0, call.masks.shape[0], "masks");
      item.foreground = entry_at("compose", *call.index, i, 1, call.foregrounds.shape[0], "foregrounds");
      item.background = entry_at("compose", *call.index, i, 2, call.backgrounds.shape[0], "backgrounds");
    } else {
      item.mask = item.foreground = item.background = static_cast<std::int32_t>(i);
    }
    if (call.rolls) {
      item.foreground_roll = roll_at(*call.rolls, i * 4, height, width);
      item.background_roll = roll_at(*call.rolls, i * 4 + 2, height, width);
    }
  }
  return items;
}

// Reads the places once, as items_of does.
std::vector<Place> places_of(const ComposeCall& call, std::int64_t n) {
  std::vector<Place> places;
  if (!call.place) return places;
  places.reserve(static_cast<std::size_t>(n));
  const float* numbers = static_cast<const float*>(call.place->data);
  for (std::int64_t i = 0; i < n; ++i) {
    float row[kPlaceNumbers];
    std::copy_n(numbers + i * kPlaceNumbers, kPlaceNumbers, row);
    if (!is_place(row[0], row[1], row[2], row[3])) {
      std::ostringstream got;
      got << "(" << row[0] << ", " << row[1] << ", " << row[2] << ", " << row[3] << ")";
      refuse("compose place", "place[" + std::to_string(i) + "]", got.str(),
             "(dy, dx, scale, flip): finite numbers, scale above 0, flip 0 or 1");
    }
    places.push_back({row[0], row[1], row[2], row[3] != 0.0f});
  }
  return places;
}

void run_on_threads(ComposeArgs a, Isa isa, std::int64_t threads) {
  const ComposeKernel& kernel =
      a.places != nullptr ? CGNRT_PICK_VARIANT(kComposePlace, isa) : CGNRT_PICK_VARIANT(kCompose, isa);
  a.widest_pixel = static_cast<std::int64_t>(
      std::max({size_of(a.masks.dtype), size_of(a.foregrounds.dtype), size_of(a.backgrounds.dtype)}));
  a.block_pixels = block_pixels_of(a);
  const std::int64_t blocks = a.n * blocks_per_sample(a);
  if (blocks == 0) return;
  const auto bytes_of = [&a](DType dtype, std::int64_t channels) {
    return a.n * a.height * a.width * channels * static_cast<std::int64_t>(size_of(dtype));
  };
  const std::int64_t out_bytes = bytes_of(a.output, a.channels);
  const std::int64_t bytes = bytes_of(a.masks.dtype, 1) + bytes_of(a.foregrounds.dtype, a.channels) +
                             bytes_of(a.backgrounds.dtype, a.channels) + out_bytes;
  if (a.streaming == Streaming::kBySize) {
    a.streaming = out_bytes > kCachedBytes ? Streaming::kAlways : Streaming::kNever;
  }
  const std::int64_t block_bytes = std::max<std::int64_t>(1, bytes / blocks);
  if (threads == 0) threads = cpus_for(bytes / kBytesPerThread);
  threads = std::clamp<std::int64_t>(threads, 1, blocks);
  const std::int64_t blocks_per_task =
      std::clamp<std::int64_t>(kBytesPerTask / block_bytes, 1, (blocks + threads - 1) / threads);
  const std::int64_t tasks = (blocks + blocks_per_task - 1) / blocks_per_task;
  parallel_for(tasks, static_cast<int>(threads), [&](std::int64_t task) {
    const std::int64_t first = task * blocks_per_task;
    kernel.blocks(a, first, std::min(blocks, first + blocks_per_task));
  });
}

}  // namespace

void compose(const ComposeCall& call, const Tensor& out) {
  require_compose_out(call, out);
  const std::optional<Isa> isa = pick_implementation(call.target.implementation);
  const std::int64_t n = call.shape[0];
  const std::int64_t channels = call.foregrounds.shape[1];
  const std::vector<ComposeItem> items = items_of(call, n);
  const std::vector<Place> places = places_of(call, n);
  const PixelForm form = for_each_channel(call.form, channels);
  ComposeArgs args{};
  static_cast<PixelFinish&>(args) = finish_of(form);
  args.masks = {call.masks.data, call.masks.dtype};
  args.foregrounds = {call.foregrounds.data, call.foregrounds.dtype};
  args.backgrounds = {call.backgrounds.data, call.backgrounds.dtype};
  args.items = items.data();
  args.places = call.place ? places.data() : nullptr;
  args.out = out.data;
  args.n = n;
  args.channels = channels;
  args.height = call.masks.shape[2];
  args.width = call.masks.shape[3];
  args.streaming = call.streaming;
  if (isa) {
    run_on_threads(args, *isa, call.target.threads);
  } else {
    compose_ref(args);
  }
}

}  // namespace cgnrt
