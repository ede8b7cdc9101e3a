// copy: the yardstick of the benchmark, the fastest plain copy that the ops' own threads can make.
#pragma once

#include <cstdint>

namespace cgnrt {

// Copies `bytes` on `threads` threads (0: all CPUs); `streams` writes around the cache.
void copy_bytes(void* to, const void* from, std::int64_t bytes, int threads, bool streams);

}  // namespace cgnrt
