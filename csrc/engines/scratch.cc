#include "engines/scratch.h"

#include <atomic>
#include <new>

#include "common/thread_pool.h"
#include "engines/floats.h"

namespace cgnrt {

void parallel_with_scratch(std::int64_t tasks, int threads, std::size_t floats,
                           const std::function<void(std::int64_t, float*)>& body) {
  std::atomic<bool> out_of_memory{false};
  parallel_for(tasks, threads, [&](std::int64_t task) {
    thread_local Floats scratch;
    thread_local std::size_t held = 0;
    if (held < floats) {
      held = 0;
      scratch = Floats();  // frees the memory first
      try {
        scratch = Floats(floats);
      } catch (const std::bad_alloc&) {
        out_of_memory = true;  // a task must not throw
        return;
      }
      held = floats;
    }
    body(task, scratch.data());
  });
  if (out_of_memory) throw std::bad_alloc();
}

}  // namespace cgnrt
