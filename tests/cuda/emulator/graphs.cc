// Captures and graphs of the emulated device. See README.md.
#include "scheduler.h"
#include "state.h"

using namespace emulator;

namespace emulator {

cudaError_t invalidate(EmulatedStream* stream, cudaError_t error) {
  stream->capture->is_invalid = true;
  return error;
}

bool breaks_capture() {
  bool found = false;
  for (const auto& capture : captures) {
    if (capture->thread != std::this_thread::get_id() || capture->mode == cudaStreamCaptureModeRelaxed ||
        thread_mode == cudaStreamCaptureModeRelaxed) {
      continue;
    }
    found = capture->is_invalid = true;
  }
  return found;
}

}  // namespace emulator

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const Lock lock(mutex);
  const auto& capture = resolve(stream)->capture;
  *status = !capture              ? cudaStreamCaptureStatusNone
            : capture->is_invalid ? cudaStreamCaptureStatusInvalidated
                                  : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return std::swap(*mode, thread_mode), cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const Lock lock(mutex);
  EmulatedStream* s = resolve(stream);
  if (s == resolve(cudaStreamLegacy)) return cudaErrorStreamCaptureUnsupported;
  if (s->capture) return cudaErrorIllegalState;
  s->capture = std::make_shared<Capture>();
  s->capture->origin = s;
  s->capture->mode = mode;
  s->capture->thread = std::this_thread::get_id();
  s->capture->streams.insert(s);
  captures.insert(s->capture);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(mutex);
  EmulatedStream* s = resolve(stream);
  if (!s->capture) return cudaErrorIllegalState;
  if (s->capture->origin != s) return cudaErrorStreamCaptureUnmatched;
  const auto capture = s->capture;
  for (EmulatedStream* taking_part : capture->streams) taking_part->capture.reset();
  captures.erase(capture);
  if (capture->is_invalid) return cudaErrorStreamCaptureInvalidated;
  if (!capture->unjoined.empty()) return cudaErrorStreamCaptureUnjoined;
  *graph = new cudaGraph_st{capture};
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return *executable = new cudaGraphExec_st{graph->capture}, cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const auto capture = executable->capture;
  for (const auto& node : capture->nodes) emulator::enqueue(stream, [capture, node] { node(); });
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const Lock lock(mutex);
  for (void* memory : executable->capture->freed) {
    if (const Block* block = forget(memory)) bury(memory, block->bytes);
  }
  return delete executable, cudaSuccess;
}
