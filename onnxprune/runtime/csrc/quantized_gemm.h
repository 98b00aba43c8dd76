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

  // y[n][m], bytes, floats or s32 as the numbers say, of x[n][k] with `count` rows. Safe to call from several threads
  // at once.
  void run(const uint8_t* x, size_t count, const Quantized& numbers, void* y, const Threads& threads);

 private:
  // Rows of x from `first` on, and outputs from `first_output` on, whose sums have `pitch` words a row.
  struct Tile {
    size_t first;
    size_t count;
    size_t first_output;
    size_t outputs;
    size_t pitch;
  };
  // The two ways from sums to y. Four outputs of bytes are interleaved into words, and these transposed: a quarter of
  // transposing sums.
  void store_fours(const Tile& tile, const float* sums, const Quantized& numbers, uint8_t* y) const;
  // Sums are transposed, then a row of y is made of a row of them. `scales` has one for each output.
  void store_rows(const Tile& tile, const float* sums, const Quantized& numbers, const float* scales, void* y) const;

  const ByteKernels& kernels_;
  size_t inputs_;
  PanelMatrix matrix_;
  std::vector<uint32_t> weight_sums_;
};

}  // namespace onnxprune
