// What every instruction set provides. `<kernel>.inl` has a kernel over a vector type, `vector_<set>.h` the type,
// and `kernels_<set>.cc` the two together, compiled with that set's flags.
//
// These files include no standard library header with code in it: an inline function compiled here with a set's
// flags could be the one copy that the linker keeps for all callers.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace onnxprune {

// One non-zero of a block: its column within the block, and its value.
struct SpmmEntry {
  uint32_t column;
  float value;
};

// Rows of a block that follow each other and have the same number of entries.
struct SpmmRun {
  uint32_t rows;
  uint32_t entries_per_row;
};

// Part of a sparse matrix, its rows sorted by their number of entries, so that the inner loop's trip count repeats
// and its branch is predicted (without: 28 % of peak instead of 42 %). Empty rows are left out.
struct SpmmBlock {
  const SpmmRun* runs;
  size_t run_count;
  const uint32_t* rows;
  const SpmmEntry* entries;
};

// Part of a sparse matrix in rows, their columns counted from the part's first one.
struct SpmvBlock {
  const uint32_t* row_start;
  const uint16_t* columns;
  const float* values;
};

// Lanes of vector `vector` of a panel's row that lie in one piece in memory: bit i of `mask` says that lane i is
// `plane[offset + i]`.
struct Piece {
  ptrdiff_t offset;
  uint32_t mask;
  uint32_t vector;
};

// Where the rows of an image's panel come from, one for each tap of an input channel.
struct Columns {
  size_t taps;
  // Floats from one channel to the next.
  size_t channel_stride;
  // For each tap, a piece for each vector.
  const Piece* first_pieces;
  // For each tap, where more pieces begin, for vectors of several.
  const size_t* more_start;
  const Piece* more_pieces;
};

struct Kernels {
  const char* name;
  // Floats in a vector.
  size_t lanes;
  // The widest tile of `spmm`, in vectors.
  size_t max_vectors;
  // sums[row][*] += weight[row][column] * panel[column][*], rows of `vectors` vectors, aligned to 64 bytes.
  void (*spmm)(const SpmmBlock& block, size_t vectors, const float* panel, float* sums);
  // sums[row - first] += weight[row] . x, for rows first to last - 1.
  void (*spmv)(const SpmvBlock& block, size_t first, size_t last, const float* x, float* sums);
  // to[column][row] = from[row][column]
  void (*transpose)(const float* from, size_t from_stride, size_t rows, size_t columns, float* to, size_t to_stride);
  // Rows of a panel from tap `tap` of the channel at `plane` on, zero where no piece has a lane.
  void (*gather)(const float* plane, size_t tap, const Columns& columns, size_t rows, size_t vectors, float* panel);
};

extern const Kernels kPortable;
extern const Kernels kAvx2;
extern const Kernels kAvx512;
extern const Kernels kNeon;

}  // namespace onnxprune
