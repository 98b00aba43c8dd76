// IEEE half precision, which no C++17 type has.
#pragma once

#include <cstdint>

namespace onnxprune {

float half_to_float(uint16_t half);
// Rounds to the nearest, ties to even.
uint16_t float_to_half(float value);

}  // namespace onnxprune
