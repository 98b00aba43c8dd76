// A sparse weight as matrices in compressed rows (CSR), as SpMV reads them: rows are outputs, columns inputs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "sparse_weight.h"

namespace onnxprune {

// How a flattened weight holds `count` consecutive matrices: row-major, or column-major if `transposed`.
struct MatrixLayout {
  size_t count;
  size_t rows;
  // Of each group. Several groups make a block-diagonal matrix, with the same number of rows in each block.
  size_t columns;
  bool transposed;
  size_t groups = 1;
};

// An element of a matrix; the value may be any word of 32 bits.
struct CsrEntry {
  uint32_t row;
  uint32_t column;
  float value;
};

// One matrix in compressed rows, cut into blocks of columns; six bytes an entry.
class CsrMatrix {
 public:
  CsrMatrix(size_t rows, size_t columns, size_t block_columns);
  // Of entries in any order; there may be several of one place.
  CsrMatrix(size_t rows, size_t columns, size_t block_columns, std::vector<CsrEntry> entries);

  // Columns from `first_column` on; `columns` are counted from it.
  struct Block {
    size_t first_column;
    std::vector<uint32_t> row_start;
    std::vector<uint16_t> columns;
    // Behind them is room for those that kernels read with the last.
    std::vector<float> values;
    // A bit for each column of each row, as MaskedBlock has them, or empty.
    std::vector<uint64_t> masks;

    SpmvBlock view() const { return {row_start.data(), columns.data(), values.data()}; }
  };

  size_t rows() const { return rows_; }
  size_t columns() const { return columns_; }
  size_t block_columns() const { return block_columns_; }
  size_t entries() const;
  // Gives masks to blocks that have entries in at least this share of their places.
  void add_masks(double least_density);
  MaskedBlock masked(const Block& block) const {
    return {block.row_start.data(), std::min(block_columns_, columns_ - block.first_column), block.masks.data(),
            block.values.data()};
  }
  const std::vector<Block>& blocks() const { return blocks_; }
  // Boundaries 0, r1, r2 ... of parts with about the same number of entries; all but the last are multiples of `step`.
  std::vector<size_t> equal_parts(size_t parts, size_t step = 1) const;

 private:
  // Filling advances each row's start to its end, which is the start of the next row.
  void begin_filling();
  void end_filling();

  friend std::vector<CsrMatrix> to_csr_matrices(const SparseWeight& weight, const MatrixLayout& layout, double scale,
                                                size_t block_columns);

  size_t rows_;
  size_t columns_;
  size_t block_columns_;
  std::vector<Block> blocks_;
};

// Columns of a block whose part of the dense vector stays in the L1 cache.
constexpr size_t kNearColumns = 4096;
// The largest number of columns that 16 bits can count.
constexpr size_t kMaxBlockColumns = size_t{1} << 16;

// The matrices of a weight, its values multiplied by `scale`.
std::vector<CsrMatrix> to_csr_matrices(const SparseWeight& weight, const MatrixLayout& layout, double scale,
                                       size_t block_columns = kNearColumns);

}  // namespace onnxprune
