// Sparse matrix times dense panels: hands the blocks of a tile to the SpMM kernel one after the other.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <vector>

#include "aligned_floats.h"
#include "kernels/kernels.h"
#include "spmm_matrix.h"
#include "threads.h"

namespace onnxprune {

// Parts of a matrix' chunks, so many that `tiles` tiles of each keep the threads busy; as their boundaries. One thread
// gets one part.
std::vector<size_t> make_parts(const SpmmMatrix& matrix, size_t tiles, const Threads& threads);

// Rows [first_chunk, last_chunk) of `matrix` times a tile of `vectors` vectors, `bias` (or null) being what each row's
// sums begin with. With `zero_panel`, the panel is zero where `load` leaves it.
//
// load(first_channel, channels, panel) fills the panel with those channels' rows; store(first_row, last_row, sums)
// takes the result.
template <class Load, class Store>
void multiply_tile(const Kernels& kernels, const SpmmMatrix& matrix, size_t vectors, size_t first_chunk,
                   size_t last_chunk, const float* bias, bool zero_panel, const Load& load, const Store& store) {
  assert(vectors >= 1 && vectors <= kernels.max_vectors);
  assert(first_chunk <= last_chunk && last_chunk <= matrix.chunks());
  const size_t pitch = vectors * kernels.lanes;
  const size_t first_row = matrix.first_row(first_chunk);
  const size_t last_row = matrix.first_row(last_chunk);
  const PanelLayout& layout = matrix.layout();
  // Every tap sees a whole row of the tile.
  assert(std::all_of(layout.taps.begin(), layout.taps.end(),
                     [&](size_t tap) { return tap + pitch <= layout.channel_stride; }));
  const size_t panel_floats = layout.block_channels * layout.channel_stride;
  // Kept by each thread: fresh memory would cost a page fault every 4 KB.
  static thread_local AlignedFloats panel_memory;
  static thread_local AlignedFloats sums_memory;
  float* const panel = panel_memory.at_least(panel_floats);
  float* const sums = sums_memory.at_least((last_row - first_row) * pitch);
  if (zero_panel) std::fill_n(panel, panel_floats, 0.0f);
  if (bias == nullptr) bias = matrix.zeros();
  for (size_t block = 0; block < matrix.blocks(); ++block) {
    bool loaded = false;
    for (size_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
      const SpmmBlock entries = matrix.block(chunk, block);
      if (entries.singles.run_count == 0 && entries.quads.run_count == 0) continue;
      if (!loaded) {
        const size_t channel = block * layout.block_channels;
        load(channel, std::min(layout.block_channels, layout.channels - channel), panel);
        loaded = true;
      }
      const size_t row = matrix.first_row(chunk);
      kernels.spmm(entries, vectors, panel, block == 0 ? bias + row : nullptr, sums + (row - first_row) * pitch);
    }
  }
  store(first_row, last_row, sums);
}

}  // namespace onnxprune
