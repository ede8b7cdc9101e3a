// Devices, streams, events and memory of the emulated device. See README.md.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "control.h"
#include "cuda_runtime_api.h"
#include "scheduler.h"

namespace {

constexpr unsigned char kUnwritten = 0xCD;
constexpr int kDevices = 2;

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

}  // namespace

struct EmulatedStream {
  int device = 0;
  std::deque<Work> work;
};
struct EmulatedEvent {
  int device = 0;
  std::shared_ptr<EventState> state = std::make_shared<EventState>();
};
struct EmulatedPool {
  int device = 0;
};

namespace {

struct Block {
  std::size_t bytes;
  cudaMemoryType type;
  int device;
};

std::recursive_mutex mutex;
std::map<std::uintptr_t, Block> blocks;
std::size_t limit_bytes = std::size_t{1} << 30;
std::size_t used_bytes[kDevices];
std::uint64_t synchronisations = 0;
int device_count = kDevices;
int driver_version = 13000;
EmulatedStream legacy[kDevices] = {{0, {}}, {1, {}}}, per_thread[kDevices] = {{0, {}}, {1, {}}};
EmulatedPool default_pools[kDevices] = {{0}, {1}};
thread_local int current_device = 0;

using Lock = std::lock_guard<std::recursive_mutex>;

EmulatedStream* resolve(cudaStream_t stream) {
  if (stream == nullptr || stream == cudaStreamLegacy) return &legacy[current_device];
  if (stream == cudaStreamPerThread) return &per_thread[current_device];
  return stream;
}

double now() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(since).count();
}

void step(EmulatedStream* stream) {
  Work work = std::move(stream->work.front());
  stream->work.pop_front();
  if (work.wait_for) {
    while (work.wait_for->done < work.version) step(work.wait_for->stream);
  } else {
    work.run();
  }
}

void drain(EmulatedStream* stream) {
  while (!stream->work.empty()) step(stream);
}

const std::pair<const std::uintptr_t, Block>* block_of(const void* memory) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  auto after = blocks.upper_bound(address);
  if (after == blocks.begin()) return nullptr;
  --after;
  return address < after->first + after->second.bytes ? &*after : nullptr;
}

bool is_pageable(const void* memory) { return block_of(memory) == nullptr; }

cudaError_t allocate(void** memory, std::size_t bytes, cudaMemoryType type, int device) {
  const std::size_t rounded = (bytes + 511) / 512 * 512;
  if (type == cudaMemoryTypeDevice && used_bytes[device] + rounded > limit_bytes) {
    return cudaErrorMemoryAllocation;
  }
  *memory = std::aligned_alloc(512, rounded > 0 ? rounded : 512);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*memory, kUnwritten, rounded);
  blocks[reinterpret_cast<std::uintptr_t>(*memory)] = {rounded, type, device};
  if (type == cudaMemoryTypeDevice) used_bytes[device] += rounded;
  return cudaSuccess;
}

// Freed memory stays readable, as its pattern, until this much has been freed after it.
constexpr std::size_t kQuarantineBytes = std::size_t{64} << 20;
std::deque<std::pair<void*, std::size_t>> quarantine;
std::size_t quarantined = 0;

void bury(void* memory, std::size_t bytes) {
  std::memset(memory, kUnwritten, bytes);
  quarantine.emplace_back(memory, bytes);
  quarantined += bytes;
  while (quarantined > kQuarantineBytes) {
    std::free(quarantine.front().first);
    quarantined -= quarantine.front().second;
    quarantine.pop_front();
  }
}

bool known(int device) { return device >= 0 && device < device_count; }

}  // namespace

namespace emulator {

void enqueue(cudaStream_t stream, std::function<void()> run) {
  const Lock lock(mutex);
  resolve(stream)->work.push_back({std::move(run), nullptr, 0});
}

bool runs_on_current_device(cudaStream_t stream) { return resolve(stream)->device == current_device; }

Counters counters() {
  const Lock lock(mutex);
  return {synchronisations, used_bytes[0], used_bytes[1]};
}

void configure(std::size_t memory_bytes, int devices, int driver) {
  const Lock lock(mutex);
  limit_bytes = memory_bytes;
  device_count = devices;
  driver_version = driver;
}

}  // namespace emulator

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    default:
      return "cudaError";
  }
}
const char* cudaGetErrorString(cudaError_t) { return "on the emulated device"; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = driver_version, cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (driver_version < 13000) return cudaErrorInsufficientDriver;
  *count = device_count;
  return device_count == 0 ? cudaErrorNoDevice : cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) { return *device = current_device, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  if (!known(device)) return cudaErrorInvalidDevice;
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (!known(device)) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      return *value = 1024, cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      return *value = 4, cudaSuccess;
    case cudaDevAttrL2CacheSize:
      return *value = 1 << 20, cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return *value = 2048, cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      return *value = 9, cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      return *value = 0, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return *value = 227 << 10, cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported:
      return *value = 1, cudaSuccess;
  }
  return cudaErrorInvalidValue;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!known(device)) return cudaErrorInvalidDevice;
  std::strcpy(properties->name, "Emulated device");
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  const Lock lock(mutex);
  *total_bytes = limit_bytes;
  *free_bytes = limit_bytes - used_bytes[current_device];
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  *stream = new EmulatedStream{current_device, {}};
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(mutex);
  drain(stream);  // CUDA lets the work finish too
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(mutex);
  ++synchronisations;
  drain(resolve(stream));
  return emulator::take_failure() ? cudaErrorLaunchFailure : cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Lock lock(mutex);
  EmulatedStream* s = resolve(stream);
  if (s->work.empty()) return cudaSuccess;
  step(s);  // whoever asks again and again gets there
  return cudaErrorNotReady;
}
cudaError_t cudaDeviceSynchronize() {
  return cudaErrorNotSupported;  // nothing in csrc may
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(mutex);
  if (event->state->issued > 0) {
    resolve(stream)->work.push_back({nullptr, event->state, event->state->issued});
  }
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  return cudaErrorStreamCaptureUnsupported;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*) { return cudaErrorStreamCaptureUnsupported; }
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long) {
  return cudaErrorNotSupported;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) { return cudaErrorNotSupported; }
cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaErrorNotSupported; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return cudaErrorNotSupported; }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return *event = new EmulatedEvent{current_device}, cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(mutex);
  EmulatedStream* s = resolve(stream);
  if (event->device != s->device) return cudaErrorInvalidResourceHandle;
  const auto state = event->state;
  state->stream = s;
  const std::uint64_t version = ++state->issued;
  s->work.push_back({[state, version] {
                       state->done = version;
                       state->milliseconds = now();
                     },
                     nullptr, 0});
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(mutex);
  if (event->state->done >= event->state->issued) return cudaSuccess;
  step(event->state->stream);
  return cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(mutex);
  ++synchronisations;
  while (event->state->done < event->state->issued) step(event->state->stream);
  return emulator::take_failure() ? cudaErrorLaunchFailure : cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  const Lock lock(mutex);
  if (from->state->done < from->state->issued || to->state->done < to->state->issued)
    return cudaErrorNotReady;
  *milliseconds = static_cast<float>(to->state->milliseconds - from->state->milliseconds);
  return cudaSuccess;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  return *pool = new EmulatedPool{properties->location.id}, cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) { return delete pool, cudaSuccess; }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t) { return cudaSuccess; }
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  return *pool = &default_pools[device], cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void** memory, std::size_t bytes, cudaMemPool_t pool, cudaStream_t) {
  const Lock lock(mutex);
  return allocate(memory, bytes, cudaMemoryTypeDevice, pool->device);
}
cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t stream) {
  const Lock lock(mutex);
  return allocate(memory, bytes, cudaMemoryTypeDevice, resolve(stream)->device);
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  const Lock lock(mutex);
  const auto found = blocks.find(reinterpret_cast<std::uintptr_t>(memory));
  if (found == blocks.end()) return cudaErrorInvalidValue;
  const Block block = found->second;
  blocks.erase(found);
  used_bytes[block.device] -= block.bytes;  // the next allocation in stream order may have it
  resolve(stream)->work.push_back({[memory, block] { bury(memory, block.bytes); }, nullptr, 0});
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  const Lock lock(mutex);
  if (is_pageable(from)) {
    const auto* first = static_cast<const unsigned char*>(from);
    const auto staged = std::make_shared<std::vector<unsigned char>>(first, first + bytes);
    emulator::enqueue(stream, [=] { std::memcpy(to, staged->data(), bytes); });
  } else {
    emulator::enqueue(stream, [=] { std::memcpy(to, from, bytes); });
  }
  if (is_pageable(to)) return cudaStreamSynchronize(stream);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  emulator::enqueue(stream, [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  const Lock lock(mutex);
  return allocate(memory, bytes, cudaMemoryTypeHost, 0);
}
cudaError_t cudaFreeHost(void* memory) {
  const Lock lock(mutex);
  const auto found = blocks.find(reinterpret_cast<std::uintptr_t>(memory));
  if (found == blocks.end()) return cudaErrorInvalidValue;
  const std::size_t bytes = found->second.bytes;
  blocks.erase(found);
  bury(memory, bytes);
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory) {
  const Lock lock(mutex);
  const auto* found = block_of(memory);
  attributes->type = found == nullptr ? cudaMemoryTypeUnregistered : found->second.type;
  attributes->device = found == nullptr ? -2 : found->second.device;
  return cudaSuccess;
}
