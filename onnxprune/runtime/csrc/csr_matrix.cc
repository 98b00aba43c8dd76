#include "csr_matrix.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>

#include "refusal.h"

namespace onnxprune {
namespace {

// Groups of a depthwise Conv, for example; each takes memory even if it is empty.
constexpr size_t kMaxMatrices = size_t{1} << 16;

}  // namespace

CsrMatrix::CsrMatrix(size_t rows, size_t columns, size_t block_columns)
    : rows_(rows), columns_(columns), block_columns_(block_columns) {
  assert(block_columns >= 1 && block_columns <= kMaxBlockColumns);
  for (size_t column = 0; column < columns; column += block_columns) {
    blocks_.push_back({column, std::vector<uint32_t>(rows + 1), {}, {}, {}});
  }
}

CsrMatrix::CsrMatrix(size_t rows, size_t columns, size_t block_columns, std::vector<CsrEntry> entries)
    : CsrMatrix(rows, columns, block_columns) {
  std::sort(entries.begin(), entries.end(),
            [](const CsrEntry& a, const CsrEntry& b) { return std::tie(a.row, a.column) < std::tie(b.row, b.column); });
  for (const CsrEntry& entry : entries) {
    assert(entry.row < rows && entry.column < columns);
    ++blocks_[entry.column / block_columns].row_start[entry.row + 1];
  }
  begin_filling();
  for (const CsrEntry& entry : entries) {
    Block& block = blocks_[entry.column / block_columns];
    const uint32_t slot = block.row_start[entry.row]++;
    block.columns[slot] = static_cast<uint16_t>(entry.column % block_columns);
    block.values[slot] = entry.value;
  }
  end_filling();
}

void CsrMatrix::begin_filling() {
  for (Block& block : blocks_) {
    std::partial_sum(block.row_start.begin(), block.row_start.end(), block.row_start.begin());
    block.columns.resize(block.row_start.back());
    block.values.resize(block.row_start.back() + kMaskColumns);
  }
}

void CsrMatrix::end_filling() {
  for (Block& block : blocks_) {
    std::rotate(block.row_start.begin(), block.row_start.end() - 1, block.row_start.end());
    block.row_start.front() = 0;
  }
}

size_t CsrMatrix::entries() const {
  size_t count = 0;
  for (const Block& block : blocks_) count += block.row_start.back();
  return count;
}

void CsrMatrix::add_masks(double least_density) {
  for (Block& block : blocks_) {
    const MaskedBlock shape = masked(block);
    const auto places = static_cast<double>(rows_) * static_cast<double>(shape.columns);
    if (block.row_start.back() < least_density * places) continue;
    const size_t words = shape.words();
    block.masks.assign(rows_ * words, 0);
    size_t bits = 0;
    for (size_t row = 0; row < rows_; ++row) {
      for (size_t i = block.row_start[row]; i < block.row_start[row + 1]; ++i) {
        uint64_t& mask = block.masks[row * words + block.columns[i] / kMaskColumns];
        const uint64_t bit = uint64_t{1} << block.columns[i] % kMaskColumns;
        bits += (mask & bit) == 0;
        mask |= bit;
      }
    }
    // Several entries of one place have one bit.
    if (bits != block.row_start.back()) block.masks = {};
  }
}

std::vector<size_t> CsrMatrix::equal_parts(size_t parts, size_t step) const {
  assert(parts >= 1 && step >= 1);
  std::vector<size_t> boundaries{0};
  const auto entries_before = [&](size_t row) {
    size_t count = row;  // an empty row costs as well
    for (const Block& block : blocks_) count += block.row_start[row];
    return count;
  };
  const size_t total = entries_before(rows_);
  for (size_t row = step; row < rows_; row += step) {
    if (entries_before(row) >= total * boundaries.size() / parts) boundaries.push_back(row);
  }
  boundaries.push_back(rows_);
  return boundaries;
}

std::vector<CsrMatrix> to_csr_matrices(const SparseWeight& weight, const MatrixLayout& layout, double scale,
                                       size_t block_columns) {
  if (std::max(layout.count, layout.groups) > kMaxMatrices) {
    throw Refusal("its weight has " + std::to_string(std::max(layout.count, layout.groups)) + " matrices");
  }
  assert(layout.groups >= 1 && layout.rows % layout.groups == 0);
  assert(layout.groups == 1 || !layout.transposed);
  assert(weight.positions.size() == weight.values.size());
  assert(std::is_sorted(weight.positions.begin(), weight.positions.end()));
  assert(weight.positions.empty() || weight.positions.back() / layout.rows / layout.columns < layout.count);
  const CsrMatrix empty(layout.rows, layout.columns * layout.groups, block_columns);
  std::vector<CsrMatrix> matrices(layout.count, empty);
  const uint64_t size = static_cast<uint64_t>(layout.rows) * layout.columns;
  const size_t group_rows = layout.rows / layout.groups;
  const auto place = [&](uint64_t position, auto&& use) {
    const uint64_t within = position % size;
    const size_t row = layout.transposed ? within % layout.rows : within / layout.columns;
    const size_t column = (layout.transposed ? within / layout.rows : within % layout.columns) +
                          (layout.groups == 1 ? 0 : row / group_rows * layout.columns);
    use(matrices[position / size].blocks_[column / block_columns], row, static_cast<uint16_t>(column % block_columns));
  };
  // A counting sort by row, in two passes; entries of a row stay in the order of their columns.
  for (const uint64_t position : weight.positions) {
    place(position, [](CsrMatrix::Block& block, size_t row, uint16_t) { ++block.row_start[row + 1]; });
  }
  for (CsrMatrix& matrix : matrices) matrix.begin_filling();
  for (size_t i = 0; i < weight.positions.size(); ++i) {
    const auto value = static_cast<float>(weight.values[i] * scale);
    place(weight.positions[i], [value](CsrMatrix::Block& block, size_t row, uint16_t column) {
      const uint32_t slot = block.row_start[row]++;
      block.columns[slot] = column;
      block.values[slot] = value;
    });
  }
  for (CsrMatrix& matrix : matrices) matrix.end_filling();
  return matrices;
}

}  // namespace onnxprune
