// Convolution with a sparse weight, of any number of spatial axes; knows nothing of onnxruntime.
//
// The weight is one matrix, output channels x (input channels * taps), which multiplies panels of the input
// (conv_tiles.h). With groups it is block-diagonal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "conv_geometry.h"
#include "conv_plans.h"
#include "csr_matrix.h"
#include "kernels/kernels.h"
#include "threads.h"

namespace onnxprune {

class SparseConv {
 public:
  // Throws Refusal if weight and attributes do not match.
  SparseConv(const Kernels& kernels, const SparseWeight& weight, ConvAttributes attributes);

  // Throws Refusal if x does not match the weight.
  std::vector<int64_t> output_shape(const std::vector<int64_t>& x_shape) const {
    return geometry_.output_shape(x_shape);
  }
  size_t output_channels() const { return geometry_.output_channels(); }

  // Safe to call from several threads at once. `bias` has a float for each output channel, or is null.
  void run(const float* x, const std::vector<int64_t>& x_shape, const float* bias, float* y, const Threads& threads,
           const Epilogue& epilogue);

 private:
  static CsrMatrix matrix_of(const SparseWeight& weight, const ConvGeometry& geometry);

  const Kernels& kernels_;
  ConvGeometry geometry_;
  ConvPlans plans_;
};

}  // namespace onnxprune
