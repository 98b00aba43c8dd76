// A sparse matrix packed for SpMM: blocks that fit the L1 cache together with the panel that they multiply.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "csr_matrix.h"
#include "kernels/kernels.h"

namespace onnxprune {

// Where a panel holds the row of the dense operand that belongs to a column of the matrix. Columns come in channels,
// each with a column for every tap of a convolution; in Gemm and MatMul a channel is one column.
struct PanelLayout {
  size_t channels;
  // Channels of a block, and floats from one channel to the next in the panel.
  size_t block_channels;
  size_t channel_stride;
  // For each tap, floats from the start of its channel.
  std::vector<size_t> taps;
};

// The rows are cut into chunks, and the columns of a chunk into blocks. The first block has every row, empty ones too,
// since it initializes the sums, and so has the last, which may turn them into results.
class SpmmMatrix {
 public:
  SpmmMatrix(const CsrMatrix& matrix, PanelLayout layout);

  size_t rows() const { return chunk_rows_.back(); }
  size_t chunks() const { return chunk_rows_.size() - 1; }
  size_t first_row(size_t chunk) const { return chunk_rows_[chunk]; }
  const PanelLayout& layout() const { return layout_; }
  size_t blocks() const { return blocks_; }
  // Whether all rows are single, so that the kernel of the last block can finish them.
  bool is_single() const { return quads_.entries.empty(); }
  SpmmBlock block(size_t chunk, size_t block) const;
  // A bias of zeros.
  const float* zeros() const { return zeros_.data(); }

 private:
  // The single rows, or the groups of four, of all blocks in sequence.
  template <class Entry>
  struct Packed {
    struct Start {
      size_t run;
      size_t row;
      size_t entry;
    };
    std::vector<SpmmRun> runs;
    std::vector<uint32_t> rows;
    std::vector<Entry> entries;
    std::vector<Start> starts{{0, 0, 0}};

    void begin_row(uint32_t row, size_t count);
    void end_block() { starts.push_back({runs.size(), rows.size(), entries.size()}); }
    SpmmRows<Entry> view(size_t block) const;
  };
  struct Row;

  void pack(const CsrMatrix& matrix, size_t chunk, size_t block);

  PanelLayout layout_;
  size_t blocks_;
  std::vector<size_t> chunk_rows_;
  std::vector<float> zeros_;
  Packed<SpmmEntry> singles_;
  Packed<SpmmQuad> quads_;
};

}  // namespace onnxprune
