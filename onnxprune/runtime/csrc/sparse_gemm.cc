#include "sparse_gemm.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "tiled_spmm.h"

namespace onnxprune {
namespace {

// From this many rows of X on, SpMM is faster than one SpMV for each row.
constexpr size_t kMinPanelRows = 2;
// Tasks of an SpMV: enough for any number of threads. Unlike SpMM, it repeats no work when it is split.
constexpr size_t kMaxParts = 64;
// With fewer entries, starting a task takes longer than its work.
constexpr size_t kMinEntries = 32768;
// From this density on, masks are faster than columns (AVX-512 on Zen 4, 4096 x 4096: 0.9 times as fast at 0.15, 1.2 at
// 0.2, 1.5 at 0.3, where memory bounds them).
constexpr double kMaskedDensity = 0.16;

CsrMatrix with_masks(const Kernels& kernels, CsrMatrix matrix) {
  if (kernels.spmv_masked != nullptr) matrix.add_masks(kMaskedDensity);
  return matrix;
}

}  // namespace

SparseGemm::SparseGemm(const Kernels& kernels, CsrMatrix matrix)
    : kernels_(kernels),
      matrix_(kernels, with_masks(kernels, std::move(matrix))),
      rows_(matrix_.rows()),
      parts_(rows_.equal_parts(std::clamp<size_t>(rows_.entries() / kMinEntries, 1, kMaxParts))) {}

void SparseGemm::run(const DenseRows<float>& x, const float* bias, float* y, const Threads& threads,
                     const Epilogue& epilogue) {
  if (x.count == 0 || rows_.rows() == 0) return;
  assert(y != nullptr && (x.data != nullptr || rows_.columns() == 0));
  assert(x.stride >= (x.transposed ? x.count : rows_.columns()));
  if (x.count < kMinPanelRows) {
    run_one_by_one(x, bias, y, threads, epilogue);
  } else {
    run_panels(x, bias, y, threads, epilogue);
  }
}

void SparseGemm::run_one_by_one(const DenseRows<float>& x, const float* bias, float* y, const Threads& threads,
                                const Epilogue& epilogue) const {
  std::vector<float> gathered(x.transposed ? x.count * rows_.columns() : 0);
  const float* data = x.data;
  size_t stride = x.stride;
  if (x.transposed) {
    stride = rows_.columns();
    kernels_.transpose(x.data, x.stride, rows_.columns(), x.count, gathered.data(), stride);
    data = gathered.data();
  }
  threads.run(parts_.size() - 1, [&](size_t part) {
    const size_t first = parts_[part];
    const size_t last = parts_[part + 1];
    for (size_t n = 0; n < x.count; ++n) {
      float* const sums = y + n * rows_.rows() + first;
      if (bias == nullptr) {
        std::fill_n(sums, last - first, 0.0f);
      } else {
        std::copy_n(bias + first, last - first, sums);
      }
      for (const CsrMatrix::Block& block : rows_.blocks()) {
        const float* const inputs = data + n * stride + block.first_column;
        if (block.masks.empty()) {
          kernels_.spmv(block.view(), first, last, inputs, sums);
        } else {
          kernels_.spmv_masked(rows_.masked(block), first, last, inputs, sums);
        }
      }
      if (epilogue.any()) kernels_.finish(epilogue, n * rows_.rows() + first, last - first, sums);
    }
  });
}

void SparseGemm::run_panels(const DenseRows<float>& x, const float* bias, float* y, const Threads& threads,
                            const Epilogue& epilogue) {
  const size_t lanes = kernels_.lanes;
  const size_t vectors = (x.count + lanes - 1) / lanes;
  const size_t widest = matrix_.tile_vectors(x.count);
  const size_t tiles = (vectors + widest - 1) / widest;
  const std::shared_ptr<const SpmmMatrix> matrix = matrix_.panels(widest);
  const size_t pitch = widest * lanes;
  const size_t outputs = rows_.rows();
  const std::vector<size_t> parts = make_parts(*matrix, tiles, pitch, threads);
  threads.run(tiles * (parts.size() - 1), [&](size_t task) {
    const size_t tile = task % tiles;
    const size_t part = task / tiles;
    const size_t first = vectors * tile / tiles * lanes;
    const size_t count = std::min(vectors * (tile + 1) / tiles * lanes, x.count) - first;
    const size_t tile_vectors = (count + lanes - 1) / lanes;
    const auto load = [&](size_t channel, size_t channels, float* panel) {
      if (x.transposed) {
        for (size_t k = 0; k < channels; ++k) {
          std::copy_n(x.data + (channel + k) * x.stride + first, count, panel + k * pitch);
        }
      } else {
        kernels_.transpose(x.data + first * x.stride + channel, x.stride, count, channels, panel, pitch);
      }
    };
    const auto store = [&](size_t first_row, size_t last_row, const float* sums) {
      kernels_.transpose(sums, tile_vectors * lanes, last_row - first_row, count, y + first * outputs + first_row,
                         outputs);
      for (size_t n = first; epilogue.any() && n < first + count; ++n) {
        kernels_.finish(epilogue, n * outputs + first_row, last_row - first_row, y + n * outputs + first_row);
      }
    };
    multiply_tile(kernels_, *matrix, tile_vectors, parts[part], parts[part + 1], bias,
                  count % lanes != 0 ? &kZero : nullptr, load, store);
  });
}

}  // namespace onnxprune
