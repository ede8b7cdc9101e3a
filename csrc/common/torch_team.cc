#include "common/torch_team.h"

#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>

#include <atomic>
#include <cstring>
#include <string>
#endif

namespace cgnrt {
namespace {

thread_local bool t_used = false;

}  // namespace

void use_torch_team(bool on) { t_used = on; }

#if defined(__linux__)
namespace {

// What a compiler calls for `#pragma omp parallel`: GCC's runtime has it, and those of Intel and LLVM.
using Parallel = void (*)(void (*work)(void*), void* data, unsigned threads, unsigned flags);

std::atomic<bool> g_forked{false};
[[maybe_unused]] const int g_fork_handler = pthread_atfork(nullptr, nullptr, [] { g_forked = true; });

int find_torch(dl_phdr_info* library, std::size_t, void* path) {
  const char* slash = std::strrchr(library->dlpi_name, '/');
  if (slash == nullptr || std::strcmp(slash, "/libtorch_cpu.so") != 0) return 0;
  *static_cast<std::string*>(path) = library->dlpi_name;
  return 1;
}

// The function that PyTorch itself calls; a process may have several OpenMP runtimes. Null if there is none.
Parallel find_parallel() {
  std::string path;
  if (dl_iterate_phdr(find_torch, &path) == 0) return nullptr;
  void* const torch = dlopen(path.c_str(), RTLD_NOLOAD | RTLD_LAZY);
  if (torch == nullptr) return nullptr;
  const auto found = reinterpret_cast<Parallel>(dlsym(torch, "GOMP_parallel"));
  dlclose(torch);  // Python never unloads it
  return found;
}

}  // namespace

bool run_in_torch_team(const std::function<void()>& work) {
  if (!t_used || g_forked) return false;
  static std::atomic<Parallel> known{nullptr};  // PyTorch may be imported later
  Parallel parallel = known.load(std::memory_order_relaxed);
  if (parallel == nullptr) {
    parallel = find_parallel();
    if (parallel == nullptr) return false;
    known.store(parallel, std::memory_order_relaxed);
  }
  const auto call = [](void* data) { (*static_cast<const std::function<void()>*>(data))(); };
  // 0: as many threads as PyTorch uses. With fewer, the runtime would end the others.
  parallel(call, const_cast<std::function<void()>*>(&work), 0, 0);
  return true;
}
#else
bool run_in_torch_team(const std::function<void()>&) { return false; }
#endif

}  // namespace cgnrt
