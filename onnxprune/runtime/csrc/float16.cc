#include "float16.h"

#include "kernels/bit_cast.h"

namespace onnxprune {

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  uint32_t bits = 0;
  if (exponent == 0) {
    bits = sign | bit_cast<uint32_t>(static_cast<float>(mantissa) * 0x1p-24f);
  } else {
    const uint32_t wide_exponent = exponent == 0x1fu ? 0xffu : exponent + 112;
    bits = sign | (wide_exponent << 23) | (mantissa << 13);
  }
  return bit_cast<float>(bits);
}

uint16_t float_to_half(float value) {
  uint32_t bits = bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (bits >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (bits < 0x38800000u) {
    // Subnormal: adding a half lets the FPU round to the last of its ten bits, ties to even.
    const auto rounded = bit_cast<uint32_t>(bit_cast<float>(bits) + 0.5f);
    return static_cast<uint16_t>(sign | (rounded - 0x3f000000u));
  }
  const uint32_t odd = (bits >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((bits - 0x38000000u + 0xfffu + odd) >> 13));
}

}  // namespace onnxprune
