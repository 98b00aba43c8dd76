// A sparse weight as matrices of rows (outputs) and columns (inputs), in the two forms that the kernels read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "entries.h"
#include "kernels/kernels.h"

namespace onnxprune {

// How a flattened weight reads as matrices that follow each other: row-major, or column-major where `transposed`.
struct MatrixLayout {
  size_t count;
  size_t rows;
  size_t columns;
  bool transposed;
};

// One matrix row by row, six bytes an entry; the form for single vectors.
class RowMatrix {
 public:
  RowMatrix(size_t rows, size_t columns);

  // Some columns from `first_column` on, counted from there.
  struct Block {
    size_t first_column;
    std::vector<uint32_t> row_start;
    std::vector<uint16_t> columns;
    std::vector<float> values;

    SpmvBlock view() const { return {row_start.data(), columns.data(), values.data()}; }
  };

  size_t rows() const { return rows_; }
  size_t columns() const { return columns_; }
  size_t entries() const;
  const std::vector<Block>& blocks() const { return blocks_; }
  // Rows [0, r1), [r1, r2) ... of about the same number of entries, as their boundaries.
  std::vector<size_t> equal_parts(size_t parts) const;

 private:
  friend std::vector<RowMatrix> to_row_matrices(const Entries& entries, const MatrixLayout& layout, double scale);

  size_t rows_;
  size_t columns_;
  std::vector<Block> blocks_;
};

// The matrices of a weight, its values multiplied by `scale`.
std::vector<RowMatrix> to_row_matrices(const Entries& entries, const MatrixLayout& layout, double scale);

// One matrix as blocks that fit the first cache together with their panel; the form for many vectors.
//
// Rows come in chunks, a chunk's columns in blocks.
class PanelMatrix {
 public:
  explicit PanelMatrix(const RowMatrix& matrix);

  size_t rows() const { return rows_; }
  size_t columns() const { return columns_; }
  size_t entries() const { return entries_.size(); }

  size_t chunks() const { return chunks_; }
  size_t first_row(size_t chunk) const { return rows_ * chunk / chunks_; }
  // Widest panel, in floats, for which a block of columns fits the first cache.
  size_t panel_width() const;

  size_t column_blocks() const { return first_columns_.size() - 1; }
  size_t first_column(size_t block) const { return first_columns_[block]; }
  SpmmBlock block(size_t chunk, size_t column_block) const;

 private:
  struct Start {
    size_t run;
    size_t row;
    size_t entry;
  };

  void pack(const RowMatrix& matrix, size_t chunk, size_t column_block);

  size_t rows_;
  size_t columns_;
  size_t chunks_;
  std::vector<size_t> first_columns_;
  std::vector<Start> starts_;
  std::vector<SpmmRun> runs_;
  std::vector<uint32_t> row_index_;
  std::vector<SpmmEntry> entries_;
};

}  // namespace onnxprune
