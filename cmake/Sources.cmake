# The sources of both modules, by the names of files: a file that follows these names needs no line here. Read by
# CMakeLists.txt and by the emulated device of the tests (tests/cuda/emulator).
#
#   csrc/ops/*_validate.cc     the checks of a call, in both modules
#   csrc/ops/*_ref.cc          plain loops: the specification
#   csrc/ops/*_cpu.cc          the CPU: the choice of the implementation, threads
#   csrc/**/*_kernel.cc        loops, compiled once for every instruction set
#   csrc/cuda/*.cu, *.cc       kernels and their calls; the host's side without Python
#   csrc/bindings/core_*.cc    cgnrt._core only
#   csrc/bindings/cuda_*.cc    cgnrt._cuda only
#   csrc/bindings/*.cc         the others, in both modules
get_filename_component(CGNRT_CSRC "${CMAKE_CURRENT_LIST_DIR}/../csrc" ABSOLUTE)

file(GLOB CGNRT_CHECKS CONFIGURE_DEPENDS ${CGNRT_CSRC}/ops/*_validate.cc)
list(APPEND CGNRT_CHECKS ${CGNRT_CSRC}/common/tensor.cc)
file(GLOB CGNRT_BINDINGS CONFIGURE_DEPENDS ${CGNRT_CSRC}/bindings/*.cc)
list(FILTER CGNRT_BINDINGS EXCLUDE REGEX "/(core|cuda)_[^/]*$")

file(GLOB CGNRT_ENGINE_KERNELS CONFIGURE_DEPENDS ${CGNRT_CSRC}/engines/*/*_kernel.cc)
file(GLOB CGNRT_CPU_KERNELS CONFIGURE_DEPENDS ${CGNRT_CSRC}/ops/*_kernel.cc)
list(APPEND CGNRT_CPU_KERNELS ${CGNRT_ENGINE_KERNELS})
file(GLOB CGNRT_CPU_SOURCES CONFIGURE_DEPENDS
  ${CGNRT_CSRC}/ops/*_ref.cc ${CGNRT_CSRC}/ops/*_cpu.cc ${CGNRT_CSRC}/engines/*.cc ${CGNRT_CSRC}/engines/*/*.cc)
list(REMOVE_ITEM CGNRT_CPU_SOURCES ${CGNRT_ENGINE_KERNELS})
list(APPEND CGNRT_CPU_SOURCES ${CGNRT_CHECKS} ${CGNRT_CSRC}/common/cpu.cc ${CGNRT_CSRC}/common/cpu_quota.cc
  ${CGNRT_CSRC}/common/thread_pool.cc ${CGNRT_CSRC}/common/torch_team.cc)
file(GLOB CGNRT_CPU_BINDINGS CONFIGURE_DEPENDS ${CGNRT_CSRC}/bindings/core_*.cc)
list(APPEND CGNRT_CPU_BINDINGS ${CGNRT_BINDINGS})

file(GLOB CGNRT_CUDA_KERNELS CONFIGURE_DEPENDS ${CGNRT_CSRC}/cuda/*.cu)
file(GLOB CGNRT_CUDA_SOURCES CONFIGURE_DEPENDS ${CGNRT_CSRC}/cuda/*.cc)
list(APPEND CGNRT_CUDA_SOURCES ${CGNRT_CHECKS})
file(GLOB CGNRT_CUDA_BINDINGS CONFIGURE_DEPENDS ${CGNRT_CSRC}/bindings/cuda_*.cc)
list(APPEND CGNRT_CUDA_BINDINGS ${CGNRT_BINDINGS})
