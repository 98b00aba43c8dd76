// The numbers around a sparse product of 8-bit integers, those of one run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace onnxprune {

// Added to s8 (as xor), it makes u8 of it, and so of its zero point; and the other way.
constexpr uint8_t kSignFlip = 0x80;

// What becomes of sums: bytes like those of x, floats, or nothing, that is s32.
enum class Output { kBytes, kFloats, kSums };

struct Quantized {
  Output output = Output::kBytes;
  // Whether x, and y of bytes, are s8; else they are u8.
  bool is_signed = false;
  // Of x and y, as they are stored.
  int32_t x_zero_point = 0;
  int32_t y_zero_point = 0;
  // x scale * weight scale, of bytes divided by y scale: one, or one for each output. Of sums none.
  std::vector<float> scales;
  // One for each output, or null: added to sums, or to floats.
  const int32_t* bias = nullptr;
  const float* float_bias = nullptr;

  // What makes bytes of x those that the kernels read, and its zero point as one of them.
  uint8_t flip(const ByteKernels& kernels) const { return is_signed == kernels.signed_panels ? 0 : kSignFlip; }
  uint8_t zero_byte(const ByteKernels& kernels) const {
    return static_cast<uint8_t>(static_cast<uint8_t>(x_zero_point) ^ flip(kernels));
  }
  const float* scale(size_t channel) const { return &scales[scales.size() == 1 ? 0 : channel]; }
  OutputRange range() const { return {y_zero_point, is_signed ? -128 : 0, is_signed ? 127 : 255}; }
  // What sums start at: the bias, less the zero point of x times the sum of an output's weights.
  std::vector<float> first_sums(const ByteKernels& kernels, const std::vector<uint32_t>& weight_sums) const;
};

}  // namespace onnxprune
