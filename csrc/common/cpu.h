// What the CPU can do, and which instruction sets this build has code for.
#pragma once

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

// Vector and matrix extensions of this CPU by their kernel names ("avx2", "avx512_bf16", "amx_tile", ...).
std::vector<std::string> cpu_features();

}  // namespace cgnrt
