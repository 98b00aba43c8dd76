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

// Boundaries of parts of the matrix' chunks. There are as many parts as it takes for `tiles` tiles of each to keep the
// threads busy, and for the sums of a tile, `pitch` floats a row, to stay in the L2 cache.
std::vector<size_t> make_parts(const SpmmMatrix& matrix, size_t tiles, size_t pitch, const Threads& threads);

// Bounds of results.
struct Clamp {
  float low;
  float high;
};

// The padding of floats.
inline constexpr float kZero = 0;

// Multiplies the rows of chunks [first_chunk, last_chunk) with a tile of `vectors` vectors. `bias` has the initial
// value of each row's sums; null means zero.
//
// With `clamp`, which only a matrix of single rows may have, the sums are brought between its bounds.
//
// load(first_channel, channels, panel) fills the panel with the rows of those channels; what it does not write is
// `*padding`, or anything where that is null. store(first_row, last_row, sums) receives the result.
template <class Load, class Store>
void multiply_tile(const Kernels& kernels, const SpmmMatrix& matrix, size_t vectors, size_t first_chunk,
                   size_t last_chunk, const float* bias, const float* padding, const Load& load, const Store& store,
                   const Clamp* clamp = nullptr) {
  assert(vectors >= 1 && vectors <= kernels.max_vectors);
  assert(clamp == nullptr || matrix.is_single());
  assert(first_chunk <= last_chunk && last_chunk <= matrix.chunks());
  const size_t pitch = vectors * kernels.lanes;
  const size_t first_row = matrix.first_row(first_chunk);
  const size_t last_row = matrix.first_row(last_chunk);
  const PanelLayout& layout = matrix.layout();
  // Every tap reads a whole row of the tile within its channel's part of the panel.
  assert(std::all_of(layout.taps.begin(), layout.taps.end(),
                     [&](size_t tap) { return tap + pitch <= layout.channel_stride; }));
  const size_t panel_floats = layout.block_channels * layout.channel_stride;
  // Kept by each thread: freshly mapped memory costs a page fault for every 4 KB.
  static thread_local AlignedFloats panel_memory;
  static thread_local AlignedFloats sums_memory;
  float* const panel = panel_memory.at_least(panel_floats);
  float* const sums = sums_memory.at_least((last_row - first_row) * pitch);
  if (padding != nullptr) std::fill_n(panel, panel_floats, *padding);
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
      float* const to = sums + (row - first_row) * pitch;
      const float* const start = block == 0 ? bias + row : nullptr;
      if (clamp != nullptr && block + 1 == matrix.blocks()) {
        const SpmmResult result{to, pitch, nullptr, true, clamp->low, clamp->high};
        kernels.spmm_last(entries.singles, vectors, panel, start, to, result);
      } else {
        kernels.spmm(entries, vectors, panel, start, to);
      }
    }
  }
  store(first_row, last_row, sums);
}

}  // namespace onnxprune
