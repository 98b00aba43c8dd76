// Activations over rows of sums: plain loops, which the compiler vectorizes for the instruction set of the file.
#pragma once

#include "bit_cast.h"
#include "kernels.h"
#include "preconditions.h"

namespace onnxprune {
namespace {

inline float between(float value, float low, float high) {
  const float raised = value < low ? low : value;
  return raised > high ? high : raised;
}

// Up to this |x|, 2^n with n = x / ln(2) is a normal float.
constexpr float kLargestExponent = 87.0f;

// exp within 2e-7 of its value, after Cephes: 2^n, times a polynomial over [-ln(2) / 2, ln(2) / 2].
inline float exponential(float x) {
  x = between(x, -kLargestExponent, kLargestExponent);
  // 1.5 * 2^23: adding it rounds a number to an integer, which is then in the low bits.
  constexpr float kRounder = 12582912.0f;
  const float shifted = x * 1.44269504f + kRounder;
  const float n = shifted - kRounder;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * bit_cast<float>((bit_cast<uint32_t>(shifted) + 127) << 23);
}

// Exactly 0 for z below -kLargestExponent, as Silu multiplies it by z, which may be large.
inline float sigmoid(float z) {
  const float value = 1.0f / (1.0f + exponential(-z));
  return z < -kLargestExponent ? 0.0f : value;
}

template <class Function>
void map(const float* addend, size_t count, float* y, const Function& function) {
  if (addend == nullptr) {
    for (size_t i = 0; i < count; ++i) y[i] = function(y[i]);
  } else {
    for (size_t i = 0; i < count; ++i) y[i] = function(y[i] + addend[i]);
  }
}

inline void finish(const Epilogue& epilogue, size_t first, size_t count, float* sums) {
  assert(count == 0 || sums != nullptr);
  const float* const addend = epilogue.addend == nullptr ? nullptr : epilogue.addend + first;
  const auto slope = static_cast<float>(epilogue.constants.slope);
  const auto offset = static_cast<float>(epilogue.constants.offset);
  const auto low = static_cast<float>(epilogue.constants.low);
  const auto high = static_cast<float>(epilogue.constants.high);
  const auto divisor = static_cast<float>(epilogue.constants.divisor);
  switch (epilogue.activation) {
    case Activation::kNone: return map(addend, count, sums, [](float z) { return z; });
    case Activation::kClip: return map(addend, count, sums, [=](float z) { return between(z, low, high); });
    case Activation::kLeakyRelu: return map(addend, count, sums, [=](float z) { return z * (z < 0 ? slope : 1.0f); });
    case Activation::kSigmoid: return map(addend, count, sums, sigmoid);
    case Activation::kSilu: return map(addend, count, sums, [=](float z) { return z * sigmoid(slope * z); });
    case Activation::kHardSwish:
      return map(addend, count, sums, [=](float z) { return z * between(slope * z + offset, low, high) / divisor; });
  }
}

}  // namespace
}  // namespace onnxprune
