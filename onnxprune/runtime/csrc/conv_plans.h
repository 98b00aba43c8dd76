// What a convolution prepares for an input's shape: its tiles, and the weight packed for their panels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "conv_tiles.h"
#include "csr_matrix.h"
#include "kernels/kernels.h"
#include "spmm_matrix.h"

namespace onnxprune {

struct ConvPlan {
  std::vector<int64_t> x_shape;
  ConvTiles tiles;
  SpmmMatrix matrix;

  // Width of the widest tile, in vectors.
  size_t widest() const;
};

class ConvPlans {
 public:
  // `channels` are those of the panels.
  ConvPlans(const Kernels& kernels, CsrMatrix matrix, size_t channels);

  // A plan for inputs of a shape, which is not kept.
  ConvPlan make(ConvShape shape) const;
  const CsrMatrix& matrix() const { return matrix_; }

  // The plan for inputs of `x_shape`, which `shape` is made of; that of the latest one is kept. Safe to call from
  // several threads at once.
  std::shared_ptr<const ConvPlan> plan(const std::vector<int64_t>& x_shape, ConvShape shape);

 private:
  const Kernels& kernels_;
  CsrMatrix matrix_;
  size_t channels_;
  std::mutex mutex_;
  std::shared_ptr<const ConvPlan> latest_;
};

}  // namespace onnxprune
