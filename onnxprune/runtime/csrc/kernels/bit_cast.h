// std::bit_cast of C++20. Local to each file that includes it, as kernels.h says why.
#pragma once

#include <string.h>

namespace onnxprune {
namespace {

template <class To, class From>
To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace
}  // namespace onnxprune
