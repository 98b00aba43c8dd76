// Loops whose counts are constants become straight code, which keeps arrays of vectors in registers.
#pragma once

#include <stddef.h>

#if defined(__clang__)
#define ONNXPRUNE_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define ONNXPRUNE_UNROLL _Pragma("GCC unroll 16")
#else
#define ONNXPRUNE_UNROLL
#endif

namespace onnxprune {
namespace {

// A number as an argument that is known to the compiler.
template <size_t kValue>
struct Constant {
  static constexpr size_t value = kValue;
};

}  // namespace
}  // namespace onnxprune
