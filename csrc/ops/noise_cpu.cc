#include <algorithm>

#include "common/cpu.h"
#include "common/thread_pool.h"
#include "ops/noise_kernel.h"

namespace cgnrt {
namespace {

// A thread is worth waking for this many numbers (some 100 us of work).
constexpr std::int64_t kNumbersPerThread = 64 << 10;
constexpr std::int64_t kNumbersPerTask = 16 << 10;

NoiseRows rows_for(Isa isa) {
  switch (isa) {
#if defined(CGNRT_HAVE_X86_VARIANTS)
    case Isa::kX86V4:
      return x86_v4::noise_rows;
    case Isa::kX86V3:
      return x86_v3::noise_rows;
#endif
    default:
      return baseline::noise_rows;
  }
}

}  // namespace

void noise_cpu(const NoiseArgs& a, const char* isa) {
  const NoiseRows run = rows_for(pick_isa(isa));
  if (a.n == 0 || a.size == 0) return;
  // A block makes four numbers, used or not.
  const std::int64_t row_numbers = (a.size + 3) / 4 * 4;
  const std::int64_t wanted = a.n * row_numbers / kNumbersPerThread;
  const int threads = static_cast<int>(std::clamp<std::int64_t>(wanted, 1, available_cpus()));
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, kNumbersPerTask / row_numbers);
  const std::int64_t tasks = (a.n + rows_per_task - 1) / rows_per_task;
  parallel_for(tasks, threads, [&](std::int64_t task) {
    const std::int64_t first = task * rows_per_task;
    run(a, first, std::min(a.n, first + rows_per_task));
  });
}

}  // namespace cgnrt
