// Tasks of the engines that need working memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace cgnrt {

// parallel_for with `floats` floats of working memory for each task, aligned to a cache line. Every thread
// keeps its memory for later calls: fresh memory for each task would take as long as a layer. Throws
// std::bad_alloc.
void parallel_with_scratch(std::int64_t tasks, int threads, std::size_t floats,
                           const std::function<void(std::int64_t task, float* scratch)>& body);

}  // namespace cgnrt
