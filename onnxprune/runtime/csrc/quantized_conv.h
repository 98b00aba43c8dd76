// Convolution of 8-bit integers with a sparse weight, as QLinearConv computes it; knows nothing of onnxruntime.
//
// Four neighboring input channels are interleaved into one channel of words. From there on it is the convolution of
// floats, with words in their place: the same tiles, panels and copies (conv_tiles.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "byte_weight.h"
#include "conv_geometry.h"
#include "conv_plans.h"
#include "kernels/kernels.h"
#include "quantized.h"
#include "threads.h"

namespace onnxprune {

class QuantizedConv {
 public:
  // Throws Refusal if weight and attributes do not match.
  QuantizedConv(const ByteKernels& kernels, const ByteWeight& weight, ConvAttributes attributes);

  // Throws Refusal if x does not match the weight.
  std::vector<int64_t> output_shape(const std::vector<int64_t>& x_shape) const {
    return geometry_.output_shape(x_shape);
  }
  size_t output_channels() const { return geometry_.output_channels(); }

  // y has bytes, floats or s32, as the numbers say; a bias of floats is not added. Safe to call from several threads at
  // once.
  void run(const uint8_t* x, const std::vector<int64_t>& x_shape, const Quantized& numbers, void* y,
           const Threads& threads);

 private:
  CsrMatrix matrix_of(const ByteWeight& weight) const;
  // Words of the input channels of every image.
  void interleave(const uint8_t* x, size_t images, size_t pixels, uint8_t flip, float* words,
                  const Threads& threads) const;

  const ByteKernels& kernels_;
  ConvGeometry geometry_;
  // Channels of words of a group.
  size_t group_fours_;
  ConvPlans plans_;
  std::vector<uint32_t> weight_sums_;
};

}  // namespace onnxprune
