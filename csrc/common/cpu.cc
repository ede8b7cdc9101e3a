#include "common/cpu.h"

#include <cstring>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace cgnrt {
namespace {

#if defined(__x86_64__)
struct Feature {
  const char* name;
  int leaf;  // 1, or 7 with the subleaf
  int subleaf;
  char reg;
  int bit;
};

constexpr Feature kFeatures[] = {
    {"sse4_2", 1, 0, 'c', 20},   {"avx", 1, 0, 'c', 28},        {"f16c", 1, 0, 'c', 29},
    {"fma", 1, 0, 'c', 12},      {"avx2", 7, 0, 'b', 5},        {"avx512f", 7, 0, 'b', 16},
    {"avx512bw", 7, 0, 'b', 30}, {"avx512vl", 7, 0, 'b', 31},   {"avx512_vnni", 7, 0, 'c', 11},
    {"avx_vnni", 7, 1, 'a', 4},  {"avx512_bf16", 7, 1, 'a', 5}, {"avx512_fp16", 7, 0, 'd', 23},
    {"amx_tile", 7, 0, 'd', 24}, {"amx_int8", 7, 0, 'd', 25},   {"amx_bf16", 7, 0, 'd', 22},
    {"amx_fp16", 7, 1, 'a', 21},
};

bool has(const Feature& feature) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(feature.leaf, feature.subleaf, &a, &b, &c, &d)) return false;
  const unsigned value = feature.reg == 'a' ? a : feature.reg == 'b' ? b : feature.reg == 'c' ? c : d;
  return ((value >> feature.bit) & 1u) != 0;
}

// Whether the system saves the registers of AMX (XCR0, bits 17 and 18): older kernels do not.
bool saves_tiles() {
  if (!has({"osxsave", 1, 0, 'c', 27})) return false;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & 0x60000u) == 0x60000u;
}
#endif

#if defined(CGNRT_HAVE_X86_VARIANTS)
// The builtin also asks whether the system saves the registers, and that of AVX2 answers for F16C too, whose
// name Clang 14 does not know here.
bool runs_v3() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && has({"f16c", 1, 0, 'c', 29});
}

bool runs_v4() {
  return runs_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
#endif

std::vector<Isa> detect_isas() {
  std::vector<Isa> isas;
#if defined(CGNRT_HAVE_X86_VARIANTS)
  __builtin_cpu_init();
  if (runs_v4()) isas.push_back(Isa::kX86V4);
  if (runs_v3()) isas.push_back(Isa::kX86V3);
#endif
  isas.push_back(Isa::kBaseline);
  return isas;
}

}  // namespace

const std::vector<Isa>& cpu_isas() {
  static const std::vector<Isa> isas = detect_isas();
  return isas;
}

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::kX86V4:
      return "x86-64-v4";
    case Isa::kX86V3:
      return "x86-64-v3";
    case Isa::kBaseline:
      break;
  }
  return "baseline";
}

Isa pick_isa(const char* name) {
  if (name == nullptr) return cpu_isas().front();
  std::string names = "'auto', 'reference'";
  for (const Isa isa : cpu_isas()) {
    if (std::strcmp(name, name_of(isa)) == 0) return isa;
    names += std::string(", '") + name_of(isa) + "'";
  }
  throw std::invalid_argument(std::string("implementation is '") + name + "', expected one of " + names);
}

std::optional<Isa> pick_implementation(const std::string& name) {
  if (name == "reference") return std::nullopt;
  return pick_isa(name == "auto" ? nullptr : name.c_str());
}

std::vector<std::string> cpu_features() {
  std::vector<std::string> features;
#if defined(__x86_64__)
  for (const Feature& feature : kFeatures) {
    const bool tiles = std::strncmp(feature.name, "amx", 3) == 0;
    if (has(feature) && (!tiles || saves_tiles())) features.emplace_back(feature.name);
  }
#elif defined(__aarch64__)
  features.emplace_back("asimd");
#endif
  return features;
}

}  // namespace cgnrt
