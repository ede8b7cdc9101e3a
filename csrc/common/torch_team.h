// The threads that PyTorch's operations run on.
#pragma once

#include <functional>

namespace cgnrt {

// Whether parallel_for, called by this thread, uses the threads that PyTorch's operations run on when this
// thread calls them. Those wait for their next operation without giving up their cores: other threads would
// get no core beside them. Off at first.
void use_torch_team(bool on);

// Runs `work` once on this thread and on each of those threads, and returns when all have finished; false,
// and nothing is run, where it is off, PyTorch is not loaded or runs on no OpenMP, or in a forked child,
// where OpenMP's threads are missing.
bool run_in_torch_team(const std::function<void()>& work);

}  // namespace cgnrt
