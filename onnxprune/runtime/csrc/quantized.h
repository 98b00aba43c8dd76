// The numbers around a sparse product of 8-bit integers, those of one run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace onnxprune {

// Added to s8 (as xor), it makes u8 of it, and so of its zero point.
constexpr uint8_t kSignFlip = 0x80;

struct Quantized {
  // Whether x and y are s8; else they are u8.
  bool is_signed;
  // Of x and y, as they are stored.
  int32_t x_zero_point;
  int32_t y_zero_point;
  // x scale * weight scale / y scale: one, or one for each output.
  std::vector<float> scales;
  // One for each output, or null.
  const int32_t* bias;

  uint8_t flip() const { return is_signed ? kSignFlip : 0; }
  // The zero point of x as the kernels read it.
  uint8_t zero_byte() const { return static_cast<uint8_t>(static_cast<uint8_t>(x_zero_point) ^ flip()); }
  float scale(size_t output) const { return scales[scales.size() == 1 ? 0 : output]; }
  OutputRange range() const { return {y_zero_point, is_signed ? -128 : 0, is_signed ? 127 : 255}; }
  // What sums start at: the bias, less the zero point of x times the sum of an output's weights.
  std::vector<float> first_sums(const std::vector<uint32_t>& weight_sums) const;
};

}  // namespace onnxprune
