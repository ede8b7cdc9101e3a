// Work of a stream captured once and launched many times.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/stream.h"

namespace cgnrt {

// Throws CudaError; other threads of the process may go on with the device.
void begin_capture(Stream& stream);

class Graph {
 public:
  // Ends the capture. Throws CudaError, also where something that was captured cannot be.
  explicit Graph(Stream& stream);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void launch(Stream& stream);

 private:
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace cgnrt
