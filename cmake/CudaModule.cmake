# The sources of cgnrt._cuda, for the build with nvcc and for the emulated device of the tests (tests/cuda/emulator).
get_filename_component(CGNRT_ROOT "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)

# Kernels. No contraction to FMA: the bits are those of the scalar references.
set(CGNRT_CUDA_KERNELS
  ${CGNRT_ROOT}/csrc/cuda/compose.cu
  ${CGNRT_ROOT}/csrc/cuda/mosaic.cu
  ${CGNRT_ROOT}/csrc/cuda/noise.cu
  ${CGNRT_ROOT}/csrc/cuda/patch_grid.cu
  ${CGNRT_ROOT}/csrc/cuda/patch_windows.cu)

# The host's side, without Python.
set(CGNRT_CUDA_HOST
  ${CGNRT_ROOT}/csrc/common/tensor.cc
  ${CGNRT_ROOT}/csrc/cuda/graph.cc
  ${CGNRT_ROOT}/csrc/cuda/memory.cc
  ${CGNRT_ROOT}/csrc/cuda/runtime.cc
  ${CGNRT_ROOT}/csrc/cuda/stream.cc
  ${CGNRT_ROOT}/csrc/ops/checks.cc
  ${CGNRT_ROOT}/csrc/ops/compose_validate.cc
  ${CGNRT_ROOT}/csrc/ops/noise_validate.cc
  ${CGNRT_ROOT}/csrc/ops/patch_grid_validate.cc)

# Compiled as one file, as those of cgnrt._core are.
set(CGNRT_CUDA_BINDINGS
  ${CGNRT_ROOT}/csrc/bindings/arguments.cc
  ${CGNRT_ROOT}/csrc/bindings/cuda_arrays.cc
  ${CGNRT_ROOT}/csrc/bindings/cuda_compose.cc
  ${CGNRT_ROOT}/csrc/bindings/cuda_exchange.cc
  ${CGNRT_ROOT}/csrc/bindings/cuda_module.cc
  ${CGNRT_ROOT}/csrc/bindings/cuda_noise.cc
  ${CGNRT_ROOT}/csrc/bindings/cuda_patch_grid.cc
  ${CGNRT_ROOT}/csrc/bindings/cuda_streams.cc
  ${CGNRT_ROOT}/csrc/bindings/draws.cc
  ${CGNRT_ROOT}/csrc/bindings/exchange.cc
  ${CGNRT_ROOT}/csrc/bindings/lend.cc
  ${CGNRT_ROOT}/csrc/bindings/patch_grid_arguments.cc
  ${CGNRT_ROOT}/csrc/bindings/pixels.cc
  ${CGNRT_ROOT}/csrc/bindings/produce.cc)
