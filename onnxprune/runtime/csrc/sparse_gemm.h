// Rows of X times a sparse weight, for Gemm and MatMul; knows nothing of onnxruntime.
#pragma once

#include <cstddef>
#include <vector>

#include "csr_matrix.h"
#include "kernels/kernels.h"
#include "panel_matrix.h"
#include "threads.h"

namespace onnxprune {

// Rows of X: row n is x[n * stride ...], or, where transposed, x[n + k * stride] over k.
template <class Number>
struct DenseRows {
  const Number* data;
  size_t count;
  size_t stride;
  bool transposed;
};

// A sparse matrix (outputs x inputs) that multiplies rows of X. A single row goes through SpMV; several go through
// SpMM, for which the matrix is packed on first use.
class SparseGemm {
 public:
  SparseGemm(const Kernels& kernels, CsrMatrix matrix);

  // y[n][m] = epilogue(bias[m] + weight[m] . x[n]); `bias` may be null. Safe to call from several threads at once.
  void run(const DenseRows<float>& x, const float* bias, float* y, const Threads& threads, const Epilogue& epilogue);

 private:
  void run_one_by_one(const DenseRows<float>& x, const float* bias, float* y, const Threads& threads,
                      const Epilogue& epilogue) const;
  void run_panels(const DenseRows<float>& x, const float* bias, float* y, const Threads& threads,
                  const Epilogue& epilogue);

  const Kernels& kernels_;
  PanelMatrix matrix_;
  const CsrMatrix& rows_;
  // Row boundaries of parts with about the same number of entries, for SpMV.
  std::vector<size_t> parts_;
};

}  // namespace onnxprune
