#include "common/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <climits>
#include <condition_variable>
#include <csignal>
#include <exception>
#include <mutex>
#include <thread>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "common/cpu_quota.h"
#include "common/torch_team.h"

// GCC 12's headers ask for a version of this function that came with GCC 12's runtime. The one of GCC 4.4
// does the same, and a wheel that asks for it also runs on systems with an older runtime.
#if defined(__linux__) && defined(__x86_64__) && defined(__GLIBCXX__)
__asm__(
    ".symver _ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE,"
    "_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE@GLIBCXX_3.4.11");
#endif

namespace cgnrt {
namespace {

#if defined(__x86_64__)
// The ops calculate with SSE and AVX, which read this register only. fesetenv also loads the x87's state,
// which takes as long as drawing the labels of an image.
using FloatEnvironment = unsigned;
void save(FloatEnvironment& found) { found = _mm_getcsr(); }
void set_default() { _mm_setcsr(0x1f80); }
void restore(const FloatEnvironment& saved) { _mm_setcsr(saved); }
#else
using FloatEnvironment = std::fenv_t;
void save(FloatEnvironment& found) { std::fegetenv(&found); }
void set_default() { std::fesetenv(FE_DFL_ENV); }
void restore(const FloatEnvironment& saved) { std::fesetenv(&saved); }
#endif

// The bits of the ops must not depend on how another library set rounding or denormals in this thread.
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment() {
    save(saved_);
    set_default();
  }
  ~DefaultFloatEnvironment() { restore(saved_); }
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

 private:
  FloatEnvironment saved_;
};

// Threads inherit the signal mask: they start with every signal blocked, so that handlers run on the user's
// threads.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &saved_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t saved_;
};

// Runs tasks until none is left.
void drain(std::atomic<std::int64_t>& next, std::int64_t tasks,
           const std::function<void(std::int64_t)>& body) {
  DefaultFloatEnvironment environment;
  for (;;) {
    const std::int64_t task = next.fetch_add(1, std::memory_order_relaxed);
    if (task >= tasks) return;
    body(task);
  }
}

void run_alone(std::int64_t tasks, const std::function<void(std::int64_t)>& body) {
  DefaultFloatEnvironment environment;
  for (std::int64_t task = 0; task < tasks; ++task) body(task);
}

// On the threads that PyTorch's operations run on; false where that is not wanted or not possible.
bool run_in_team(std::int64_t tasks, int threads, const std::function<void(std::int64_t)>& body) {
  std::atomic<std::int64_t> next{0};
  std::atomic<int> vacancies{threads};
  return run_in_torch_team([&] {
    if (vacancies.fetch_sub(1, std::memory_order_relaxed) > 0) drain(next, tasks, body);
  });
}

class ThreadPool {
 public:
  void run(std::int64_t tasks, int threads, const std::function<void(std::int64_t)>& body) {
    const int helpers = static_cast<int>(std::min<std::int64_t>(threads, tasks)) - 1;
    Call call{body, tasks, helpers};
    {
      std::lock_guard<std::mutex> lock(mutex_);
      Call** last = &calls_;
      while (*last != nullptr) last = &(*last)->next_call;
      *last = &call;
      grow(helpers);
    }
    for (int i = 0; i < helpers; ++i) wake_.notify_one();
    drain(call.next, call.tasks, call.body);
    std::unique_lock<std::mutex> lock(mutex_);
    Call** own = &calls_;
    while (*own != &call) own = &(*own)->next_call;
    *own = call.next_call;  // a helper that wakes only now is too late
    call.done.wait(lock, [&call] { return call.active == 0; });
  }

 private:
  // One call of run(), in its caller's stack. The pool's mutex guards what changes, except next.
  struct Call {
    const std::function<void(std::int64_t)>& body;
    const std::int64_t tasks;
    int vacancies;   // helpers that it still admits
    int active = 0;  // helpers at work
    std::atomic<std::int64_t> next{0};
    std::condition_variable done{};
    Call* next_call = nullptr;  // that began later
  };

  void grow(int size) {
    BlockedSignals blocked;
    try {
      for (; size_ < size; ++size_) std::thread([this] { work(); }).detach();
    } catch (const std::exception&) {
      // There are no more threads, or no memory for one: the existing ones and the caller do the work.
    }
  }

  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      Call* call = nullptr;
      wake_.wait(lock, [&] { return (call = with_vacancy()) != nullptr; });
      --call->vacancies;
      ++call->active;
      lock.unlock();
      drain(call->next, call->tasks, call->body);
      lock.lock();
      if (--call->active == 0) call->done.notify_one();
    }
  }

  // The earliest call that has tasks left and admits a helper, or null.
  Call* with_vacancy() const {
    Call* call = calls_;
    while (call != nullptr &&
           (call->vacancies == 0 || call->next.load(std::memory_order_relaxed) >= call->tasks)) {
      call = call->next_call;
    }
    return call;
  }

  std::mutex mutex_;  // guards the members below
  std::condition_variable wake_;
  Call* calls_ = nullptr;  // those that have not ended, in the order in which they began
  int size_ = 0;           // helpers
};

// Never destroyed: its threads outlive static destruction.
std::atomic<ThreadPool*> g_pool{nullptr};

// A forked child has the pool's memory but none of its threads, and perhaps a lock that is never released: it
// leaves that pool and makes another.
void forget_pool() { g_pool.store(nullptr); }

[[maybe_unused]] const int g_fork_handler = pthread_atfork(nullptr, nullptr, forget_pool);

const int g_quota = cpu_quota("").value_or(INT_MAX);  // read once: ops ask in every call

ThreadPool& pool() {
  ThreadPool* current = g_pool.load();
  if (current != nullptr) return *current;
  ThreadPool* created = new ThreadPool;
  if (g_pool.compare_exchange_strong(current, created)) return *created;
  delete created;
  return *current;
}

}  // namespace

int available_cpus() {
  int cpus = 0;
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cpus = CPU_COUNT(&set);
#endif
  // Only then: it reads files, which takes longer than a small call.
  if (cpus == 0) cpus = static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp(cpus, 1, g_quota);
}

int cpus_for(std::int64_t wanted) {
  return wanted <= 1 ? 1 : static_cast<int>(std::min<std::int64_t>(wanted, available_cpus()));
}

void parallel_for(std::int64_t tasks, int threads, const std::function<void(std::int64_t)>& body) {
  if (threads <= 1 || tasks <= 1) return run_alone(tasks, body);
  if (run_in_team(tasks, threads, body)) return;
  pool().run(tasks, threads, body);
}

}  // namespace cgnrt
