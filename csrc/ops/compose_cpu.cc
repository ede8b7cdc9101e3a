#include <algorithm>
#include <cstdint>

#include "common/cpu.h"
#include "common/thread_pool.h"
#include "ops/compose.h"
#include "ops/compose_kernel.h"

namespace cgnrt {
namespace {

// A thread is worth waking for this many bytes read and written (some 100 us of work).
constexpr std::int64_t kBytesPerThread = 1 << 20;
// Tasks are this large, so that threads that lag behind can be evened out.
constexpr std::int64_t kBytesPerTask = 2 << 20;

// A larger batch would not stay in the cache until it is read. Half of what a group of cores commonly shares:
// what the system says of its caches varies with the virtual machine more than with the hardware.
constexpr std::int64_t kCachedBytes = 16 << 20;

ComposeBlocks blocks_for(Isa isa) {
  switch (isa) {
#if defined(CGNRT_HAVE_X86_VARIANTS)
    case Isa::kX86V4:
      return x86_v4::compose_blocks;
    case Isa::kX86V3:
      return x86_v3::compose_blocks;
#endif
    default:
      return baseline::compose_blocks;
  }
}

}  // namespace

void compose_cpu(const ComposeArgs& given, const char* isa) {
  ComposeArgs a = given;
  const ComposeBlocks run = blocks_for(pick_isa(isa));
  const std::int64_t per_sample = blocks_per_sample(a);
  const std::int64_t blocks = a.n * per_sample;
  if (blocks == 0) return;
  const std::int64_t pixel_bytes = (1 + 2 * a.channels) * static_cast<std::int64_t>(size_of(a.input)) +
                                   a.channels * static_cast<std::int64_t>(size_of(a.output));
  const std::int64_t bytes = a.n * a.height * a.width * pixel_bytes;
  if (a.streaming == Streaming::kBySize) {
    const std::int64_t out_bytes =
        a.n * a.height * a.width * a.channels * static_cast<std::int64_t>(size_of(a.output));
    a.streaming = out_bytes > kCachedBytes ? Streaming::kAlways : Streaming::kNever;
  }
  const std::int64_t block_bytes = std::max<std::int64_t>(1, bytes / blocks);
  std::int64_t threads = a.threads;
  if (threads == 0) threads = std::min<std::int64_t>(available_cpus(), bytes / kBytesPerThread);
  threads = std::clamp<std::int64_t>(threads, 1, blocks);
  const std::int64_t blocks_per_task =
      std::clamp<std::int64_t>(kBytesPerTask / block_bytes, 1, (blocks + threads - 1) / threads);
  const std::int64_t tasks = (blocks + blocks_per_task - 1) / blocks_per_task;
  parallel_for(tasks, static_cast<int>(threads), [&](std::int64_t task) {
    const std::int64_t first = task * blocks_per_task;
    run(a, first, std::min(blocks, first + blocks_per_task));
  });
}

}  // namespace cgnrt
