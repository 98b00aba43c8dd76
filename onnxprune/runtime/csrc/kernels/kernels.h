// What every instruction set provides. `<kernel>.inl` has a kernel over a vector type, `vector_<set>.h` the type,
// and `kernels_<set>.cc` the two together, compiled with that set's flags.
//
// These files include no standard library header with code in it: an inline function compiled here with a set's
// flags could be the one copy that the linker keeps for all callers.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "epilogue.h"

namespace onnxprune {

// One non-zero of a block: where its panel row begins, in floats from the panel's start, and its value.
struct SpmmEntry {
  uint32_t offset;
  float value;
};

// The same for four rows of the weight that follow each other and have their non-zeros at the same columns.
struct SpmmQuad {
  uint32_t offset;
  float values[4];
};

// Rows of a block that follow each other and have the same number of entries.
struct SpmmRun {
  uint32_t rows;
  uint32_t entries_per_row;
};

// Rows of a sparse matrix, sorted by their number of entries, so that the inner loop's trip count repeats and its
// branch is predicted (without: 28 % of peak instead of 42 %). Empty rows are
// left out, but for those of a block that the sums begin with.
template <class Entry>
struct SpmmRows {
  const SpmmRun* runs;
  size_t run_count;
  const uint32_t* rows;
  const Entry* entries;
};

// Part of a sparse matrix: rows by themselves, and fours of rows, named by the first of them.
struct SpmmBlock {
  SpmmRows<SpmmEntry> singles;
  SpmmRows<SpmmQuad> quads;
};

// Part of a sparse matrix in rows, their columns counted from the part's first one.
struct SpmvBlock {
  const uint32_t* row_start;
  const uint16_t* columns;
  const float* values;
};

// Floats that move from `from + source` to `to + target`; how many is their kind's.
struct Copy {
  ptrdiff_t source;
  ptrdiff_t target;
};

// A vector's worth of floats, as many at a distance of two, eight, four, or one.
enum CopyKind { kVectors, kEveryOther, kEights, kFours, kOnes, kCopyKinds };

// Copies of each kind, from `copies + begin[kind]` on to `copies + begin[kind + 1]`.
struct Copies {
  const Copy* copies;
  size_t begin[kCopyKinds + 1];
};

struct Kernels {
  const char* name;
  // Floats in a vector.
  size_t lanes;
  // The widest tile of `spmm`, in vectors.
  size_t max_vectors;
  // sums[row][*] += weight[row][column] * panel[column][*], rows of `vectors` vectors, aligned to 64 bytes. With
  // `bias`, the sums begin with bias[row], whatever they were.
  void (*spmm)(const SpmmBlock& block, size_t vectors, const float* panel, const float* bias, float* sums);
  // sums[row - first] += weight[row] . x, for rows first to last - 1.
  void (*spmv)(const SpmvBlock& block, size_t first, size_t last, const float* x, float* sums);
  // to[column][row] = from[row][column]
  void (*transpose)(const float* from, size_t from_stride, size_t rows, size_t columns, float* to, size_t to_stride);
  // Makes the copies for each of `rows` rows.
  void (*copy)(const Copies& copies, const float* from, size_t from_stride, size_t rows, float* to, size_t to_stride);
  // Apply the epilogue to `count` sums, where they are stored: elements `first` and on of y.
  void (*finish)(const Epilogue& epilogue, size_t first, size_t count, float* sums);
};

extern const Kernels kPortable;
extern const Kernels kAvx2;
extern const Kernels kAvx512;
extern const Kernels kNeon;

}  // namespace onnxprune
