#include "cuda/graph.h"

#include "cuda/check.h"
#include "cuda/memory.h"
#include "cuda/runtime.h"

namespace cgnrt {

void begin_capture(Stream& stream) {
  const DeviceGuard guard(stream.device());
  CGNRT_CUDA_CHECK(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal));
}

Graph::Graph(Stream& stream) {
  const DeviceGuard guard(stream.device());
  cudaGraph_t captured = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream.handle(), &captured);
  release_deferred();
  CGNRT_CUDA_CHECK(ended);
  const cudaError_t status = cudaGraphInstantiate(&executable_, captured, 0);
  cudaGraphDestroy(captured);
  CGNRT_CUDA_CHECK(status);
}

Graph::~Graph() { cudaGraphExecDestroy(executable_); }

void Graph::launch(Stream& stream) {
  const DeviceGuard guard(stream.device());
  CGNRT_CUDA_CHECK(cudaGraphLaunch(executable_, stream.handle()));
}

}  // namespace cgnrt
