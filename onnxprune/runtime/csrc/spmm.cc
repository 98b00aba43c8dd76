#include "spmm.h"

#include <thread>

namespace onnxprune {
namespace {

// Tasks for each core, so that unequal ones even out.
constexpr size_t kTasksPerCore = 2;

}  // namespace

std::vector<Tile> make_tiles(size_t columns, size_t panel_width, const Kernels& kernels) {
  const size_t vectors = (columns + kernels.lanes - 1) / kernels.lanes;
  const size_t widest = std::clamp<size_t>(panel_width / kernels.lanes, 1, kernels.max_vectors);
  const size_t count = (vectors + widest - 1) / widest;
  std::vector<Tile> tiles;
  for (size_t i = 0; i < count; ++i) {
    const size_t first = vectors * i / count;
    const size_t last = vectors * (i + 1) / count;
    const size_t end = std::min(last * kernels.lanes, columns);
    tiles.push_back({first * kernels.lanes, end - first * kernels.lanes, last - first});
  }
  return tiles;
}

std::vector<size_t> make_parts(const PanelMatrix& matrix, size_t tiles) {
  static const size_t cores = std::max(std::thread::hardware_concurrency(), 1u);
  const size_t wanted = (kTasksPerCore * cores + tiles - 1) / std::max<size_t>(tiles, 1);
  const size_t parts = std::clamp<size_t>(wanted, 1, std::max<size_t>(matrix.chunks(), 1));
  std::vector<size_t> boundaries;
  for (size_t part = 0; part <= parts; ++part) boundaries.push_back(matrix.chunks() * part / parts);
  return boundaries;
}

void multiply_tile(const Kernels& kernels, const PanelMatrix& matrix, const Tile& tile, size_t first_chunk,
                   size_t last_chunk, const TileSource& source) {
  const size_t pitch = tile.vectors * kernels.lanes;
  const size_t first_row = matrix.first_row(first_chunk);
  const size_t last_row = matrix.first_row(last_chunk);
  size_t widest = 0;
  for (size_t block = 0; block < matrix.column_blocks(); ++block) {
    widest = std::max(widest, matrix.first_column(block + 1) - matrix.first_column(block));
  }
  // Kept by each thread: fresh memory would cost a page fault every 4 KB.
  static thread_local AlignedFloats panel_memory;
  static thread_local AlignedFloats sums_memory;
  float* const panel = panel_memory.at_least(widest * pitch);
  float* const sums = sums_memory.at_least((last_row - first_row) * pitch);
  for (size_t row = first_row; row < last_row; ++row) {
    std::fill_n(sums + (row - first_row) * pitch, pitch, source.bias(row));
  }
  for (size_t block = 0; block < matrix.column_blocks(); ++block) {
    source.load(tile, matrix.first_column(block), matrix.first_column(block + 1), panel);
    for (size_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
      float* const chunk_sums = sums + (matrix.first_row(chunk) - first_row) * pitch;
      kernels.spmm(matrix.block(chunk, block), tile.vectors, panel, chunk_sums);
    }
  }
  source.store(tile, first_row, last_row, sums);
}

}  // namespace onnxprune
