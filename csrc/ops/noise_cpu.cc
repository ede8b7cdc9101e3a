// noise on the CPU: chooses the implementation, and divides the work among threads.
#include <algorithm>

#include "common/cpu.h"
#include "common/thread_pool.h"
#include "ops/noise.h"

namespace cgnrt {
namespace {

// One more thread is woken for each this many numbers (some 100 us of work).
constexpr std::int64_t kNumbersPerThread = 64 << 10;
constexpr std::int64_t kNumbersPerTask = 16 << 10;

void run_on_threads(const NoiseArgs& a, Isa isa) {
  const NoiseKernel& kernel = CGNRT_PICK_VARIANT(kNoise, isa);
  if (a.n == 0 || a.size == 0) return;
  // A block makes four numbers, used or not.
  const std::int64_t row_numbers = (a.size + 3) / 4 * 4;
  const std::int64_t wanted = a.n * row_numbers / kNumbersPerThread;
  const int threads = cpus_for(wanted);
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, kNumbersPerTask / row_numbers);
  const std::int64_t tasks = (a.n + rows_per_task - 1) / rows_per_task;
  parallel_for(tasks, threads, [&](std::int64_t task) {
    const std::int64_t first = task * rows_per_task;
    kernel.rows(a, first, std::min(a.n, first + rows_per_task));
  });
}

}  // namespace

void noise(const NoiseCall& call, const Tensor& out) {
  require_noise_out(call, out);
  const std::optional<Isa> isa = pick_implementation(call.target.implementation);
  std::vector<std::uint32_t> bounds = call.bounds;
  if (bounds.size() == 1) bounds.resize(static_cast<std::size_t>(call.size), bounds[0]);
  NoiseArgs args{};
  args.kind = call.kind;
  args.seed = call.seed;
  args.indices = static_cast<const std::int64_t*>(call.indices.data);
  args.n = call.shape[0];
  args.slot = call.slot;
  args.size = call.size;
  args.bounds = bounds.data();
  args.out = out.data;
  if (isa) {
    run_on_threads(args, *isa);
  } else {
    noise_ref(args);
  }
}

}  // namespace cgnrt
