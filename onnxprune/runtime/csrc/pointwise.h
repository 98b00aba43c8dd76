// A 1x1 convolution of channels whose pixels are contiguous: it multiplies them where they are, without packing, and
// stores results where they belong.
#pragma once

#include <cstddef>

#include "csr_matrix.h"
#include "kernels/kernels.h"
#include "spmm_matrix.h"
#include "threads.h"

namespace onnxprune {

// Whether channels that begin `pitch` floats apart would evict each other from the L1 cache: lines at a distance of 32
// fall into the same set of it, or into two.
constexpr bool is_clashing(size_t pitch) { return pitch % (32 * 16) == 0; }

class Pointwise {
 public:
  // For channels of `pixels` floats, a multiple of the vector, which begin `x_pitch` apart, in the output `y_pitch`.
  Pointwise(const Kernels& kernels, const CsrMatrix& matrix, size_t pixels, size_t x_pitch, size_t y_pitch);

  // Otherwise every channel of x must begin at a multiple of 64 bytes.
  bool takes_any_alignment() const { return matrix_.is_single(); }

  // `bias` has a float for each output channel, or is null; the epilogue's addend has the layout of y. Safe
  // to call from several threads at once.
  void run(const float* x, const float* bias, float* y, const Threads& threads, const Epilogue& epilogue) const;

 private:
  struct Cut {
    size_t vectors;
    size_t channels;
  };
  // The width of tiles and the channels of a block with the least estimated cost.
  static Cut best_cut(const Kernels& kernels, const CsrMatrix& matrix, size_t pixels);
  void run_tile(const float* x, const float* bias, float* y, size_t vectors, size_t first_chunk, size_t last_chunk,
                size_t at, const Epilogue& epilogue) const;

  const Kernels& kernels_;
  size_t pixels_;
  size_t x_pitch_;
  size_t y_pitch_;
  Cut cut_;
  SpmmMatrix matrix_;
};

}  // namespace onnxprune
