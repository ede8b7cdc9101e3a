// What the files of the emulated runtime share: streams, events, captures and memory. See README.md.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "cuda_runtime_api.h"

struct EventState {
  std::uint64_t issued = 0;  // records asked for
  std::uint64_t done = 0;    // records that their stream has reached
  EmulatedStream* stream = nullptr;
  double milliseconds = 0;
};

struct Work {
  std::function<void()> run;
  std::shared_ptr<EventState> wait_for;  // or null
  std::uint64_t version = 0;
};

// What is captured, in the order in which it was enqueued.
struct Capture {
  EmulatedStream* origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  bool is_invalid = false;
  std::vector<std::function<void()>> nodes;
  std::set<EmulatedStream*> streams;   // that take part
  std::set<EmulatedStream*> unjoined;  // that the origin does not wait for
  std::set<void*> memory;              // that the graph allocates
  std::set<void*> freed;               // and gives back itself
};

struct EmulatedStream {
  int device = 0;
  std::deque<Work> work;
  std::shared_ptr<Capture> capture;  // or null
};
struct EmulatedEvent {
  int device = 0;
  std::shared_ptr<EventState> state = std::make_shared<EventState>();
  std::shared_ptr<Capture> capture;  // in which it was recorded, or null
};
struct EmulatedPool {
  int device = 0;
  std::uint64_t threshold = 0;  // what it keeps when the host waits
  std::size_t used = 0;
  std::size_t reserved = 0;
};
struct cudaGraph_st {
  std::shared_ptr<Capture> capture;
};
struct cudaGraphExec_st {
  std::shared_ptr<Capture> capture;
};

struct Block {
  std::size_t bytes;
  cudaMemoryType type;
  int device;
  EmulatedPool* pool;
};

namespace emulator {

constexpr unsigned char kUnwritten = 0xCD;
constexpr int kDevices = 2;
using Lock = std::lock_guard<std::recursive_mutex>;

inline std::recursive_mutex mutex;
inline std::map<std::uintptr_t, Block> blocks;
inline std::size_t limit_bytes = std::size_t{1} << 30;
inline std::size_t used_bytes[kDevices];
inline std::uint64_t synchronisations = 0;
inline std::uint64_t mappings = 0;
inline int device_count = kDevices;
inline int driver_version = 13000;
inline std::set<EmulatedPool*> pools;
inline std::set<std::shared_ptr<Capture>> captures;  // under way
inline thread_local int current_device = 0;
inline thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

// The stream that a handle means to this thread.
EmulatedStream* resolve(cudaStream_t stream);
// The host waits for the device: pools give back what is above their threshold.
void note_synchronisation();
// A capture that does what cannot be captured is lost. Gives the error.
cudaError_t invalidate(EmulatedStream* stream, cudaError_t error);
// Whether a call that is in no stream's order breaks a capture of this thread.
bool breaks_capture();
// Takes memory out of the books; null where there is none.
const Block* forget(void* memory);
// Fills freed memory with its pattern.
void bury(void* memory, std::size_t bytes);

}  // namespace emulator
