// Rows of X times a sparse weight, for Gemm and MatMul.
#pragma once

#include <cstddef>
#include <mutex>
#include <optional>
#include <vector>

#include "kernels/kernels.h"
#include "matrix.h"
#include "parallel.h"

namespace onnxprune {

// Rows of X: row n is x[n * stride ...], or, where transposed, x[n + k * stride] over k.
template <class Number>
struct DenseRows {
  const Number* data;
  size_t count;
  size_t stride;
  bool transposed;
};

// A sparse matrix (outputs x inputs) that multiplies rows of X; packed for many of them when first asked to.
class Product {
 public:
  Product(const Kernels& kernels, RowMatrix matrix);

  // y[n][m] = bias[m] + weight[m] . x[n]; `bias` may be null. Safe to call from several threads at once.
  void run(const DenseRows<float>& x, const float* bias, float* y, const Threads& threads);

 private:
  void run_one_by_one(const DenseRows<float>& x, const float* bias, float* y, const Threads& threads) const;
  void run_panels(const DenseRows<float>& x, const float* bias, float* y, const Threads& threads);

  const Kernels& kernels_;
  RowMatrix rows_;
  // Boundaries of parts of about the same number of entries.
  std::vector<size_t> parts_;
  std::once_flag packing_;
  std::optional<PanelMatrix> panels_;
};

}  // namespace onnxprune
