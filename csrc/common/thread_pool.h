// A small persistent pool of threads, shared by the ops.
#pragma once

#include <cstdint>
#include <functional>

namespace cgnrt {

// CPUs this process may use: its affinity mask, and no more than the quota of its container; at least 1.
int available_cpus();

// As many of them as `wanted`, at least 1. For one the system is not asked, which a small call would notice.
int cpus_for(std::int64_t wanted);

// Runs body(0) ... body(tasks - 1), each once, on at most `threads` threads, the caller's among them, and
// returns when all have finished. The body must not throw. Tasks are handed out in order, one at a time.
//
// The pool starts with the first parallel call and grows to the largest number asked for. Calls of several
// threads share its threads: a thread that finds no task left in one call goes on to the next. A forked child
// starts a pool of its own.
void parallel_for(std::int64_t tasks, int threads, const std::function<void(std::int64_t)>& body);

}  // namespace cgnrt
