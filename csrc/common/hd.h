// CGNRT_HD marks arithmetic that the CPU variants and CUDA device code share.
//
// On the host the functions have internal linkage and are always inlined: several translation units compile
// the same header for different instruction sets, and a shared out-of-line copy could be one the machine
// cannot run.
#pragma once

#if defined(__CUDACC__)
#define CGNRT_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define CGNRT_HD static inline __attribute__((always_inline, unused))
#else
#define CGNRT_HD static inline
#endif
