// What the CPU can do, and which instruction sets this build has code for.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace cgnrt {

enum class Isa { kBaseline, kX86V3, kX86V4 };

// The instruction sets that this build has code for and this machine runs, best first.
const std::vector<Isa>& cpu_isas();

// "baseline", "x86-64-v3" or "x86-64-v4".
const char* name_of(Isa isa);

// The instruction set named so if this machine runs it, the best one for null; throws std::invalid_argument
// otherwise.
Isa pick_isa(const char* name);

// Of an op's `implementation`: the instruction set named so, the best one for "auto", none for "reference".
// Throws std::invalid_argument for another name.
std::optional<Isa> pick_implementation(const std::string& name);

// Vector and matrix extensions of this CPU by their kernel names ("avx2", "avx512_bf16", "amx_tile", ...).
std::vector<std::string> cpu_features();

}  // namespace cgnrt

// A file of loops is compiled once for every instruction set, with CGNRT_ISA naming the namespace, and gives
// its functions in one constant. CGNRT_DECLARE_VARIANTS declares that constant in each of the namespaces;
// CGNRT_PICK_VARIANT is the one for an Isa that this machine runs.
#define CGNRT_DECLARE_VARIANTS(Type, name) \
  namespace baseline {                     \
  extern const Type name;                  \
  }                                        \
  namespace x86_v3 {                       \
  extern const Type name;                  \
  }                                        \
  namespace x86_v4 {                       \
  extern const Type name;                  \
  }

#if defined(CGNRT_HAVE_X86_VARIANTS)
#define CGNRT_PICK_VARIANT(name, isa) \
  ((isa) == Isa::kX86V4 ? x86_v4::name : (isa) == Isa::kX86V3 ? x86_v3::name : baseline::name)
#else
#define CGNRT_PICK_VARIANT(name, isa) (static_cast<void>(isa), baseline::name)
#endif
