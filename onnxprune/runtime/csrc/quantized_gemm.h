// Rows of 8-bit integers times a sparse weight, as QLinearMatMul computes it; knows nothing of onnxruntime.
//
// Four neighboring inputs of a row are one word, so that rows of bytes are rows of words as they stand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "byte_weight.h"
#include "kernels/kernels.h"
#include "panel_matrix.h"
#include "quantized.h"
#include "threads.h"

namespace onnxprune {

class QuantizedGemm {
 public:
  // For a weight of two axes.
  QuantizedGemm(const ByteKernels& kernels, const ByteWeight& weight);

  size_t inputs() const { return inputs_; }
  size_t outputs() const { return matrix_.rows().rows(); }

  // y[n][m], of x[n][k] with `count` rows. Safe to call from several threads at once.
  void run(const uint8_t* x, size_t count, const Quantized& numbers, uint8_t* y, const Threads& threads);

 private:
  const ByteKernels& kernels_;
  size_t inputs_;
  PanelMatrix matrix_;
  std::vector<uint32_t> weight_sums_;
};

}  // namespace onnxprune
