#include "product.h"

#include <algorithm>
#include <utility>

#include "spmm.h"

namespace onnxprune {
namespace {

// From here on a panel of one vector is faster than a pass over the weight for each row of X.
constexpr size_t kMinPanelRows = 2;
// Tasks of a pass over the weight: enough for any machine, and for uneven cores.
constexpr size_t kMaxParts = 64;
// Below this number of entries a task costs more than it does.
constexpr size_t kMinEntries = 32768;

}  // namespace

Product::Product(const Kernels& kernels, RowMatrix matrix)
    : kernels_(kernels),
      rows_(std::move(matrix)),
      parts_(rows_.equal_parts(std::clamp<size_t>(rows_.entries() / kMinEntries, 1, kMaxParts))) {}

void Product::run(const DenseRows<float>& x, const float* bias, float* y, const Threads& threads) {
  if (x.count == 0 || rows_.rows() == 0) return;
  if (x.count < kMinPanelRows) {
    run_one_by_one(x, bias, y, threads);
  } else {
    run_panels(x, bias, y, threads);
  }
}

void Product::run_one_by_one(const DenseRows<float>& x, const float* bias, float* y, const Threads& threads) const {
  std::vector<float> gathered(x.transposed ? x.count * rows_.columns() : 0);
  const float* data = x.data;
  size_t stride = x.stride;
  if (x.transposed) {
    stride = rows_.columns();
    kernels_.transpose(x.data, x.stride, rows_.columns(), x.count, gathered.data(), stride);
    data = gathered.data();
  }
  run_parallel(threads, parts_.size() - 1, [&](size_t part) {
    const size_t first = parts_[part];
    const size_t last = parts_[part + 1];
    for (size_t n = 0; n < x.count; ++n) {
      float* const sums = y + n * rows_.rows() + first;
      if (bias == nullptr) {
        std::fill_n(sums, last - first, 0.0f);
      } else {
        std::copy_n(bias + first, last - first, sums);
      }
      for (const RowMatrix::Block& block : rows_.blocks()) {
        kernels_.spmv(block.view(), first, last, data + n * stride + block.first_column, sums);
      }
    }
  });
}

void Product::run_panels(const DenseRows<float>& x, const float* bias, float* y, const Threads& threads) {
  std::call_once(packing_, [this] { panels_.emplace(rows_); });
  const size_t outputs = rows_.rows();
  TileSource source;
  source.load = [&](const Tile& tile, size_t first, size_t last, float* panel) {
    const size_t pitch = tile.vectors * kernels_.lanes;
    if (x.transposed) {
      for (size_t k = first; k < last; ++k) {
        const float* const from = x.data + k * x.stride + tile.first;
        std::copy_n(from, tile.count, panel + (k - first) * pitch);
      }
    } else {
      kernels_.transpose(x.data + tile.first * x.stride + first, x.stride, tile.count, last - first, panel, pitch);
    }
    for (size_t k = 0; tile.count < pitch && k < last - first; ++k) {
      std::fill_n(panel + k * pitch + tile.count, pitch - tile.count, 0.0f);
    }
  };
  source.bias = [bias](size_t row) { return bias == nullptr ? 0.0f : bias[row]; };
  source.store = [&](const Tile& tile, size_t first, size_t last, const float* sums) {
    kernels_.transpose(sums, tile.vectors * kernels_.lanes, last - first, tile.count, y + tile.first * outputs + first,
                       outputs);
  };
  const std::vector<Tile> tiles = make_tiles(x.count, panels_->panel_width(), kernels_);
  const std::vector<size_t> parts = make_parts(*panels_, tiles.size());
  run_parallel(threads, tiles.size() * (parts.size() - 1), [&](size_t task) {
    const size_t part = task / tiles.size();
    multiply_tile(kernels_, *panels_, tiles[task % tiles.size()], parts[part], parts[part + 1], source);
  });
}

}  // namespace onnxprune
