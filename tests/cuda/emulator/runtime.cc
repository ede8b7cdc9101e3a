// Devices, streams and events of the emulated device. See README.md.
#include <chrono>
#include <cstring>

#include "control.h"
#include "scheduler.h"
#include "state.h"

using namespace emulator;

namespace {

EmulatedStream legacy[kDevices] = {{0, {}, {}}, {1, {}, {}}},
               per_thread[kDevices] = {{0, {}, {}}, {1, {}, {}}};

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

bool known(int device) { return device >= 0 && device < device_count; }

}  // namespace

namespace emulator {

EmulatedStream* resolve(cudaStream_t stream) {
  if (stream == nullptr || stream == cudaStreamLegacy) return &legacy[current_device];
  if (stream == cudaStreamPerThread) return &per_thread[current_device];
  return stream;
}

void enqueue(cudaStream_t stream, std::function<void()> run) {
  const Lock lock(mutex);
  EmulatedStream* s = resolve(stream);
  if (s->capture) {
    s->capture->nodes.push_back(std::move(run));
  } else {
    s->work.push_back({std::move(run), nullptr, 0});
  }
}

bool runs_on_current_device(cudaStream_t stream) { return resolve(stream)->device == current_device; }

Counters counters() {
  const Lock lock(mutex);
  return {synchronisations, {used_bytes[0], used_bytes[1]}, mappings};
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
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureUnjoined:
      return "cudaErrorStreamCaptureUnjoined";
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
  *stream = new EmulatedStream{current_device, {}, {}};
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
  EmulatedStream* s = resolve(stream);
  if (s->capture) return invalidate(s, cudaErrorStreamCaptureUnsupported);
  note_synchronisation();
  drain(s);
  return emulator::take_failure() ? cudaErrorLaunchFailure : cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Lock lock(mutex);
  EmulatedStream* s = resolve(stream);
  if (s->capture) return invalidate(s, cudaErrorStreamCaptureUnsupported);
  if (s->work.empty()) return cudaSuccess;
  step(s);  // whoever asks again and again gets there
  return cudaErrorNotReady;
}
cudaError_t cudaDeviceSynchronize() {
  return cudaErrorNotSupported;  // nothing in csrc may
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(mutex);
  EmulatedStream* s = resolve(stream);
  if (event->capture) {
    Capture& capture = *event->capture;
    if (!s->capture) {  // the stream is drawn into the capture
      s->capture = event->capture;
      capture.streams.insert(s);
      capture.unjoined.insert(s);
    } else if (s == capture.origin) {
      capture.unjoined.erase(event->state->stream);
    }
    return s->capture == event->capture ? cudaSuccess : invalidate(s, cudaErrorStreamCaptureIsolation);
  }
  if (event->state->issued == 0) return cudaSuccess;
  if (s->capture) return invalidate(s, cudaErrorStreamCaptureIsolation);
  s->work.push_back({nullptr, event->state, event->state->issued});
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return *event = new EmulatedEvent{current_device, std::make_shared<EventState>(), nullptr}, cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(mutex);
  EmulatedStream* s = resolve(stream);
  if (event->device != s->device) return cudaErrorInvalidResourceHandle;
  const auto state = event->state;
  state->stream = s;
  event->capture = s->capture;
  if (s->capture) return cudaSuccess;
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
  if (event->capture) return cudaErrorCapturedEvent;
  if (event->state->done >= event->state->issued) return cudaSuccess;
  step(event->state->stream);
  return cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(mutex);
  if (event->capture) return cudaErrorCapturedEvent;
  note_synchronisation();
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
