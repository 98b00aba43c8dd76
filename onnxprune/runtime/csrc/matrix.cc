#include "matrix.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "cpu.h"

namespace onnxprune {
namespace {

// Columns of a block of rows: their x stays in the first cache.
constexpr size_t kNearColumns = 4096;

// Entries of a row in a block, at which loading and storing the row's sum costs little: from 10 on the choice moves
// times by few per cent, since more entries mean narrower panels.
constexpr size_t kEntriesPerRow = 14;
constexpr size_t kMinBlockColumns = 48;
// Beyond, panels get so narrow that packing them costs more than the sums do (64 outputs at 4 %: 2.5 against 3.8).
constexpr size_t kMaxBlockColumns = 128;
// A chunk's rows are sorted together, so that few is bad; chunks are what threads share out, so that many is bad.
constexpr size_t kMinChunkRows = 256;
constexpr size_t kMaxChunkRows = 1024;
constexpr size_t kWantedChunks = 8;
// Groups of a depthwise Conv, say; each costs memory even where it is empty.
constexpr size_t kMaxMatrices = size_t{1} << 16;

size_t block_columns(const RowMatrix& matrix) {
  const size_t entries = std::max<size_t>(matrix.entries(), 1);
  const size_t wanted = kEntriesPerRow * matrix.rows() * matrix.columns() / entries;
  return std::clamp(wanted, kMinBlockColumns, kMaxBlockColumns);
}

size_t count_chunks(size_t rows) {
  const size_t chunk = std::clamp(rows / kWantedChunks, kMinChunkRows, kMaxChunkRows);
  return (rows + chunk - 1) / chunk;
}

}  // namespace

RowMatrix::RowMatrix(size_t rows, size_t columns) : rows_(rows), columns_(columns) {
  for (size_t column = 0; column < columns; column += kNearColumns) {
    blocks_.push_back({column, std::vector<uint32_t>(rows + 1), {}, {}});
  }
}

size_t RowMatrix::entries() const {
  size_t count = 0;
  for (const Block& block : blocks_) count += block.values.size();
  return count;
}

std::vector<size_t> RowMatrix::equal_parts(size_t parts) const {
  std::vector<size_t> boundaries{0};
  const auto entries_before = [&](size_t row) {
    size_t count = row;  // an empty row costs as well
    for (const Block& block : blocks_) count += block.row_start[row];
    return count;
  };
  const size_t total = entries_before(rows_);
  for (size_t row = 1; row <= rows_; ++row) {
    if (row == rows_ || entries_before(row) >= total * boundaries.size() / parts) boundaries.push_back(row);
  }
  return boundaries;
}

std::vector<RowMatrix> to_row_matrices(const Entries& entries, const MatrixLayout& layout, double scale) {
  if (layout.count > kMaxMatrices) throw Refusal("its weight has " + std::to_string(layout.count) + " matrices");
  std::vector<RowMatrix> matrices(layout.count, RowMatrix(layout.rows, layout.columns));
  const uint64_t size = static_cast<uint64_t>(layout.rows) * layout.columns;
  const auto place = [&](uint64_t position, auto&& use) {
    const uint64_t within = position % size;
    const size_t row = layout.transposed ? within % layout.rows : within / layout.columns;
    const size_t column = layout.transposed ? within / layout.rows : within % layout.columns;
    use(matrices[position / size].blocks_[column / kNearColumns], row, static_cast<uint16_t>(column % kNearColumns));
  };
  // A counting sort by row, in two passes; entries of a row stay in the order of their columns.
  for (const uint64_t position : entries.positions) {
    place(position, [](RowMatrix::Block& block, size_t row, uint16_t) { ++block.row_start[row + 1]; });
  }
  for (RowMatrix& matrix : matrices) {
    for (RowMatrix::Block& block : matrix.blocks_) {
      std::partial_sum(block.row_start.begin(), block.row_start.end(), block.row_start.begin());
      block.columns.resize(block.row_start.back());
      block.values.resize(block.row_start.back());
    }
  }
  for (size_t i = 0; i < entries.positions.size(); ++i) {
    const auto value = static_cast<float>(entries.values[i] * scale);
    place(entries.positions[i], [value](RowMatrix::Block& block, size_t row, uint16_t column) {
      const uint32_t slot = block.row_start[row]++;
      block.columns[slot] = column;
      block.values[slot] = value;
    });
  }
  // Each start has moved on to its row's end, which is the next one's start.
  for (RowMatrix& matrix : matrices) {
    for (RowMatrix::Block& block : matrix.blocks_) {
      std::rotate(block.row_start.begin(), block.row_start.end() - 1, block.row_start.end());
      block.row_start.front() = 0;
    }
  }
  return matrices;
}

PanelMatrix::PanelMatrix(const RowMatrix& matrix)
    : rows_(matrix.rows()), columns_(matrix.columns()), chunks_(count_chunks(matrix.rows())) {
  const size_t step = block_columns(matrix);
  for (const RowMatrix::Block& block : matrix.blocks()) {
    const size_t end = std::min(block.first_column + kNearColumns, columns_);
    for (size_t column = block.first_column; column < end; column += step) first_columns_.push_back(column);
  }
  first_columns_.push_back(columns_);
  entries_.reserve(matrix.entries());
  starts_.push_back({0, 0, 0});
  for (size_t chunk = 0; chunk < chunks_; ++chunk) {
    for (size_t block = 0; block < column_blocks(); ++block) pack(matrix, chunk, block);
  }
}

size_t PanelMatrix::panel_width() const {
  size_t widest = 1;
  for (size_t block = 0; block < column_blocks(); ++block) {
    widest = std::max(widest, first_columns_[block + 1] - first_columns_[block]);
  }
  return panel_bytes() / sizeof(float) / widest;
}

SpmmBlock PanelMatrix::block(size_t chunk, size_t column_block) const {
  const Start& start = starts_[chunk * column_blocks() + column_block];
  const Start& end = starts_[chunk * column_blocks() + column_block + 1];
  return {runs_.data() + start.run, end.run - start.run, row_index_.data() + start.row, entries_.data() + start.entry};
}

void PanelMatrix::pack(const RowMatrix& matrix, size_t chunk, size_t column_block) {
  const size_t first = first_columns_[column_block];
  const size_t last = first_columns_[column_block + 1];
  const RowMatrix::Block& block = matrix.blocks()[first / kNearColumns];
  struct Row {
    uint32_t index;
    uint32_t begin;
    uint32_t count;
  };
  std::vector<Row> rows;
  for (size_t row = first_row(chunk); row < first_row(chunk + 1); ++row) {
    const auto columns = block.columns.begin();
    const auto begin = columns + block.row_start[row];
    const auto end = columns + block.row_start[row + 1];
    const auto from = std::lower_bound(begin, end, first - block.first_column);
    const auto to = std::lower_bound(from, end, last - block.first_column);
    if (from == to) continue;
    rows.push_back({static_cast<uint32_t>(row - first_row(chunk)), static_cast<uint32_t>(from - columns),
                    static_cast<uint32_t>(to - from)});
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.count < b.count; });
  for (const Row& row : rows) {
    if (runs_.size() == starts_.back().run || runs_.back().entries_per_row != row.count) {
      runs_.push_back({0, row.count});
    }
    ++runs_.back().rows;
    row_index_.push_back(row.index);
    for (uint32_t i = row.begin; i < row.begin + row.count; ++i) {
      const size_t column = block.first_column + block.columns[i] - first;
      entries_.push_back({static_cast<uint32_t>(column), block.values[i]});
    }
  }
  starts_.push_back({runs_.size(), row_index_.size(), entries_.size()});
}

}  // namespace onnxprune
