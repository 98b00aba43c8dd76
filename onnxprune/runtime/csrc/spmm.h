// Sparse matrix times dense panels: cuts the work into tiles and hands them to the kernels.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <vector>

#include "kernels/kernels.h"
#include "matrix.h"
#include "parallel.h"

namespace onnxprune {

// Columns `first` to `first + count` of the dense operand and of the result, in a panel of `vectors` vectors.
struct Tile {
  size_t first;
  size_t count;
  size_t vectors;
};

// Tiles of about equal width, none wider than `panel_width` floats.
std::vector<Tile> make_tiles(size_t columns, size_t panel_width, const Kernels& kernels);

// Parts of a matrix' chunks, so many that `tiles` tiles of each keep the machine's cores busy; as their boundaries.
std::vector<size_t> make_parts(const PanelMatrix& matrix, size_t tiles);

// Where a product's tiles come from and go to.
struct TileSource {
  // Fill the panel with rows `first_row` to `last_row` of the dense operand, `tile.vectors` vectors a row.
  std::function<void(const Tile& tile, size_t first_row, size_t last_row, float* panel)> load;
  // What a row's sums begin with.
  std::function<float(size_t row)> bias;
  // Take rows `first_row` to `last_row` of the result.
  std::function<void(const Tile& tile, size_t first_row, size_t last_row, const float* sums)> store;
};

// One tile of rows [chunks first_chunk to last_chunk) of `matrix` times what `source` loads.
void multiply_tile(const Kernels& kernels, const PanelMatrix& matrix, const Tile& tile, size_t first_chunk,
                   size_t last_chunk, const TileSource& source);

}  // namespace onnxprune
