# cgnrt_find_cuda(): sets CGNRT_WITH_CUDA in the caller's scope, as CGNRT_CUDA says. The caller then enables the language
# at the top level (a function would lose its variables) and before any target is made: architectures set later do not
# reach them.
include(CheckLanguage)

function(cgnrt_find_cuda)
  if(NOT CGNRT_CUDA MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "CGNRT_CUDA is '${CGNRT_CUDA}', expected AUTO, ON or OFF.")
  endif()
  set(CGNRT_WITH_CUDA OFF PARENT_SCOPE)
  if(CGNRT_CUDA STREQUAL "OFF")
    return()
  endif()

  # A100 and H100 as machine code; what is newer compiles the PTX of the last.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "80-real;90" CACHE STRING "CUDA architectures to compile for")
  endif()
  # Compiles a small program in a project of its own: a broken toolkit counts as none.
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CGNRT_WITH_CUDA ON PARENT_SCOPE)
    message(STATUS "CGNRT_CUDA: ${CMAKE_CUDA_COMPILER} for ${CMAKE_CUDA_ARCHITECTURES}")
  elseif(CGNRT_CUDA STREQUAL "ON")
    message(FATAL_ERROR
      "CGNRT_CUDA is ON, but no working CUDA compiler was found. Put nvcc on PATH, set CUDACXX or "
      "CMAKE_CUDA_COMPILER to it, or set CGNRT_CUDA to AUTO or OFF.")
  else()
    message(STATUS "CGNRT_CUDA: no working CUDA compiler found, CPU only")
  endif()
endfunction()
