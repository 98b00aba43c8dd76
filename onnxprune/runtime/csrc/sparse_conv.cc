#include "sparse_conv.h"

#include <utility>

#include "tiled_spmm.h"

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
  const std::vector<ConvTiles::Tile>& tiles = plan->tiles.tiles();
  const PanelLayout& layout = plan->matrix.layout();
  const auto x_pixels = static_cast<size_t>(volume({x_shape.begin() + 2, x_shape.end()}));
  const auto y_pixels = static_cast<size_t>(volume({y_shape.begin() + 2, y_shape.end()}));
  const std::vector<size_t> parts = make_parts(plan->matrix, tiles.size(), plan->widest() * kernels_.lanes, threads);
  threads.run(tiles.size() * (parts.size() - 1), [&](size_t task) {
    const ConvTiles::Tile& tile = tiles[task % tiles.size()];
    const size_t part = task / tiles.size();
    const Copies loads = plan->tiles.loads(tile);
    const Copies stores = plan->tiles.stores(tile);
    const auto load = [&](size_t channel, size_t channels, float* panel) {
      kernels_.copy(loads, x + tile.input + channel * x_pixels, x_pixels, channels, panel, layout.channel_stride);
    };
    const auto store = [&](size_t first_row, size_t last_row, const float* sums) {
      kernels_.copy(stores, sums, tile.vectors * kernels_.lanes, last_row - first_row,
                    y + tile.output + first_row * y_pixels, y_pixels);
      for (size_t row = first_row; epilogue.any() && row < last_row; ++row) {
        for (const ConvTiles::Run& stored : plan->tiles.stored(tile)) {
          const size_t first = static_cast<size_t>(tile.output + stored.target) + row * y_pixels;
          kernels_.finish(epilogue, first, stored.count, y + first);
        }
      }
    };
    multiply_tile(kernels_, plan->matrix, tile.vectors, parts[part], parts[part + 1], bias,
                  plan->tiles.has_holes(tile) ? &kZero : nullptr, load, store);
  });
}

}  // namespace onnxprune
