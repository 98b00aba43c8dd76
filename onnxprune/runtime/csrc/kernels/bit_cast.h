// std::bit_cast for C++17. In an unnamed namespace for the reason that kernels.h gives.
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
