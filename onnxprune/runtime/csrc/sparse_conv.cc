#include "sparse_conv.h"

#include <utility>

#include "tiled_conv.h"

namespace onnxprune {

SparseConv::SparseConv(const Kernels& kernels, const SparseWeight& weight, ConvAttributes attributes)
    : kernels_(kernels),
      geometry_(weight.shape, std::move(attributes)),
      plans_(kernels, matrix_of(weight, geometry_), geometry_.input_channels()) {}

CsrMatrix SparseConv::matrix_of(const SparseWeight& weight, const ConvGeometry& geometry) {
  const auto group_columns = static_cast<size_t>(volume({weight.shape.begin() + 1, weight.shape.end()}));
  const MatrixLayout layout{1, geometry.output_channels(), group_columns, false, geometry.groups()};
  return std::move(to_csr_matrices(weight, layout, 1.0, kMaxBlockColumns).front());
}

void SparseConv::run(const float* x, const std::vector<int64_t>& x_shape, const float* bias, float* y,
                     const Threads& threads, const Epilogue& epilogue) {
  const std::vector<int64_t> y_shape = output_shape(x_shape);
  if (volume(y_shape) == 0) return;
  const std::shared_ptr<const ConvPlan> plan = plans_.plan(x_shape, geometry_.resolve(x_shape));
  const auto x_pixels = static_cast<size_t>(volume({x_shape.begin() + 2, x_shape.end()}));
  const auto y_pixels = static_cast<size_t>(volume({y_shape.begin() + 2, y_shape.end()}));
  const auto store = [&](const ConvTiles::Tile& tile, const Copies& copies, size_t first_row, size_t last_row,
                         const float* sums) {
    kernels_.copy(copies, sums, tile.vectors * kernels_.lanes, last_row - first_row,
                  y + tile.output + first_row * y_pixels, y_pixels);
    for (size_t row = first_row; epilogue.any() && row < last_row; ++row) {
      for (const ConvTiles::Run& stored : plan->tiles.stored(tile)) {
        const size_t first = static_cast<size_t>(tile.output + stored.target) + row * y_pixels;
        kernels_.finish(epilogue, first, stored.count, y + first);
      }
    }
  };
  multiply_tiles(kernels_, *plan, copying(kernels_, *plan, x, x_pixels), bias, kZero, threads, store);
}

}  // namespace onnxprune
