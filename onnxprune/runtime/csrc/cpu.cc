#include "cpu.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "refusal.h"

#if defined(__linux__)
#include <sys/auxv.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#if defined(_MSC_VER) && defined(_M_X64)
#include <immintrin.h>
#include <intrin.h>
#elif defined(ONNXPRUNE_X86)
#include <cpuid.h>
#endif

namespace onnxprune {
namespace {

#if defined(ONNXPRUNE_X86)
// By CPUID itself: what __builtin_cpu_supports reads is always zero in libraries that zig links.
bool has_bits(int leaf, int word, int bits) {
#if defined(_MSC_VER)
  int words[4];
  __cpuidex(words, leaf, 0);
#else
  unsigned words[4];
  __cpuid_count(leaf, 0, words[0], words[1], words[2], words[3]);
#endif
  return (static_cast<int>(words[word]) & bits) == bits;
}

// Whether the operating system keeps registers of these kinds: extended control register 0.
bool os_saves(unsigned long long state) {
#if defined(_MSC_VER)
  const unsigned long long saved = _xgetbv(0);
#else
  unsigned low, high;  // the intrinsic wants the file to be built for CPUs that have it
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const unsigned long long saved = static_cast<unsigned long long>(high) << 32 | low;
#endif
  return (saved & state) == state;
}

constexpr int kFmaXsaveAvx = 1 << 12 | 1 << 27 | 1 << 28;
constexpr int kAvx2Bit = 1 << 5;
constexpr int kAvx512FBit = 1 << 16;
constexpr int kAvx512BwBit = 1 << 30;
constexpr int kAvx512VnniBit = 1 << 11;
bool has_avx2() { return has_bits(1, 2, kFmaXsaveAvx) && os_saves(0x6) && has_bits(7, 1, kAvx2Bit); }
bool has_avx512() { return has_avx2() && os_saves(0xe6) && has_bits(7, 1, kAvx512FBit); }
bool has_avx512_vnni() { return has_avx512() && has_bits(7, 1, kAvx512BwBit) && has_bits(7, 2, kAvx512VnniBit); }
#endif

#if defined(ONNXPRUNE_NEON_DOT)
#if defined(__APPLE__)
bool has_feature(const char* name) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
bool has_dotprod() { return has_feature("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has_feature("hw.optional.arm.FEAT_I8MM"); }
#elif defined(__linux__)
// By the numbers of Linux: older headers do not name them.
constexpr unsigned long kDotprodBit = 1ul << 20;  // HWCAP_ASIMDDP
constexpr unsigned long kI8mmBit = 1ul << 13;     // HWCAP2_I8MM
bool has_dotprod() { return (getauxval(AT_HWCAP) & kDotprodBit) != 0; }
bool has_i8mm() { return (getauxval(AT_HWCAP2) & kI8mmBit) != 0; }
#else
bool has_dotprod() { return false; }
bool has_i8mm() { return false; }
#endif
#endif

bool always() { return true; }

struct Candidate {
  const Kernels& kernels;
  bool (*runs_here)();
};

// The widest first.
const Candidate kCandidates[] = {
#if defined(ONNXPRUNE_X86)
    {kAvx512, has_avx512},
    {kAvx2, has_avx2},
#elif defined(ONNXPRUNE_NEON)
    {kNeon, always},
#endif
    {kPortable, always},
};

struct ByteCandidate {
  const ByteKernels& kernels;
  // The instruction set of floats at whose side it works: the name that ONNXPRUNE_ISA may have.
  const Kernels& side;
  bool (*runs_here)();
};

// The fastest first.
const ByteCandidate kByteCandidates[] = {
#if defined(ONNXPRUNE_X86)
    {kAvx512VnniBytes, kAvx512, has_avx512_vnni},
    {kAvx2Bytes, kAvx2, has_avx2},
#elif defined(ONNXPRUNE_NEON)
#if defined(ONNXPRUNE_NEON_DOT)
    {kNeonI8mmBytes, kNeon, has_i8mm},
    {kNeonDotBytes, kNeon, has_dotprod},
#endif
    {kNeonBytes, kNeon, always},
#endif
    {kPortableBytes, kPortable, always},
};

}  // namespace

std::vector<const Kernels*> runnable_kernels() {
  std::vector<const Kernels*> runnable;
  for (const Candidate& candidate : kCandidates) {
    if (candidate.runs_here()) runnable.push_back(&candidate.kernels);
  }
  return runnable;
}

const Kernels& choose_kernels() {
  const char* variable = std::getenv("ONNXPRUNE_ISA");
  const std::string wanted = variable == nullptr ? "" : variable;
  std::string names;
  for (const Kernels* const kernels : runnable_kernels()) {
    if (wanted.empty() || wanted == kernels->name) return *kernels;
    names += std::string(names.empty() ? "" : ", ") + kernels->name;
  }
  throw Refusal("ONNXPRUNE_ISA is '" + wanted + "', but this machine has " + names);
}

std::vector<const ByteKernels*> runnable_byte_kernels() {
  std::vector<const ByteKernels*> runnable;
  for (const ByteCandidate& candidate : kByteCandidates) {
    if (candidate.runs_here()) runnable.push_back(&candidate.kernels);
  }
  return runnable;
}

const ByteKernels& choose_byte_kernels() {
  const Kernels& wanted = choose_kernels();
  bool reached = false;
  for (const ByteCandidate& candidate : kByteCandidates) {
    reached = reached || &candidate.side == &wanted;
    if (reached && candidate.runs_here()) return candidate.kernels;
  }
  return kPortableBytes;
}

size_t panel_bytes() {
  // The smallest L1 data cache of CPUs of the last ten years.
  long cache = 32 * 1024;
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  cache = std::max(cache, sysconf(_SC_LEVEL1_DCACHE_SIZE));
#endif
  return static_cast<size_t>(cache) / 4 * 3;
}

size_t sums_bytes() {
  // Where the system does not tell; most cores have this much.
  long cache = 512 * 1024;
#if defined(_SC_LEVEL2_CACHE_SIZE)
  cache = std::max(cache, sysconf(_SC_LEVEL2_CACHE_SIZE));
#endif
  return static_cast<size_t>(cache) / 2;
}

}  // namespace onnxprune
