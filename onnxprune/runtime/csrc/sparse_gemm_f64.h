// SparseGemm in double precision. Such models are rare, so it is a plain loop.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "csr_matrix.h"
#include "sparse_gemm.h"
#include "threads.h"

namespace onnxprune {

// Applies the epilogue in place to `count` sums, which are the elements of y from `first` on.
inline void finish(const EpilogueOf<double>& epilogue, size_t first, size_t count, double* sums) {
  const Constants& c = epilogue.constants;
  const auto between = [&](double value) {
    const double raised = value < c.low ? c.low : value;
    return raised > c.high ? c.high : raised;
  };
  const auto sigmoid = [](double z) { return 1 / (1 + std::exp(-z)); };
  for (size_t i = 0; i < count; ++i) {
    double& z = sums[i];
    if (epilogue.addend != nullptr) z += epilogue.addend[first + i];
    switch (epilogue.activation) {
      case Activation::kNone: break;
      case Activation::kClip: z = between(z); break;
      case Activation::kLeakyRelu: z *= z < 0 ? c.slope : 1; break;
      case Activation::kSigmoid: z = sigmoid(z); break;
      case Activation::kSilu: z *= sigmoid(c.slope * z); break;
      case Activation::kHardSwish: z = z * between(c.slope * z + c.offset) / c.divisor; break;
    }
  }
}

class SparseGemmF64 {
 public:
  SparseGemmF64(const SparseWeight& weight, const MatrixLayout& layout, size_t index, double scale)
      : outputs_(layout.rows) {
    const uint64_t size = static_cast<uint64_t>(layout.rows) * layout.columns;
    for (size_t i = 0; i < weight.positions.size(); ++i) {
      const uint64_t position = weight.positions[i];
      if (position / size != index) continue;
      const size_t major = position % size / (layout.transposed ? layout.rows : layout.columns);
      const size_t minor = position % size % (layout.transposed ? layout.rows : layout.columns);
      const double value = weight.values[i] * scale;
      entries_.push_back(layout.transposed ? Entry{minor, major, value} : Entry{major, minor, value});
    }
  }

  // y[n][m] = epilogue(bias[m] + weight[m] . x[n]); `bias` may be null.
  void run(const DenseRows<double>& x, const double* bias, double* y, const Threads& threads,
           const EpilogueOf<double>& epilogue) const {
    threads.run(x.count, [&](size_t n) {
      double* const sums = y + n * outputs_;
      for (size_t m = 0; m < outputs_; ++m) sums[m] = bias == nullptr ? 0.0 : bias[m];
      const double* const row = x.data + n * (x.transposed ? 1 : x.stride);
      for (const Entry& entry : entries_) {
        sums[entry.row] += entry.value * row[entry.column * (x.transposed ? x.stride : 1)];
      }
      finish(epilogue, n * outputs_, outputs_, sums);
    });
  }

 private:
  struct Entry {
    size_t row;
    size_t column;
    double value;
  };

  size_t outputs_;
  std::vector<Entry> entries_;
};

}  // namespace onnxprune
