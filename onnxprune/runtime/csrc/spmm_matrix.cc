#include "spmm_matrix.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace onnxprune {
namespace {

// Rows are sorted within a chunk, which favors large chunks; threads share chunks, which favors small ones.
constexpr size_t kMinChunkRows = 256;
constexpr size_t kMaxChunkRows = 1024;
constexpr size_t kWantedChunks = 8;

constexpr size_t kQuadRows = 4;
// Values that a group of four rows may store, as a multiple of its non-zeros: what its shared loads about make up for.
constexpr double kMaxQuadFill = 1.25;

size_t count_chunks(size_t rows) {
  const size_t chunk = std::clamp(rows / kWantedChunks, kMinChunkRows, kMaxChunkRows);
  return (rows + chunk - 1) / chunk;
}

}  // namespace

// The entries of a row within a block.
struct SpmmMatrix::Row {
  uint32_t index;
  std::vector<SpmmEntry> entries;
  bool in_quad = false;
};

SpmmMatrix::SpmmMatrix(const CsrMatrix& matrix, PanelLayout layout)
    : layout_(std::move(layout)),
      blocks_((layout_.channels + layout_.block_channels - 1) / layout_.block_channels),
      chunk_rows_(matrix.equal_parts(std::max<size_t>(count_chunks(matrix.rows()), 1), kQuadRows)),
      zeros_(matrix.rows()) {
  assert(layout_.block_channels >= 1 && layout_.channel_stride >= 1);
  assert(layout_.channels * layout_.taps.size() == matrix.columns());
  assert(std::all_of(layout_.taps.begin(), layout_.taps.end(),
                     [this](size_t tap) { return tap < layout_.channel_stride; }));
  assert(layout_.block_channels * layout_.channel_stride <= UINT32_MAX);
  singles_.entries.reserve(matrix.entries());
  for (size_t chunk = 0; chunk < chunks(); ++chunk) {
    for (size_t block = 0; block < blocks_; ++block) pack(matrix, chunk, block);
  }
}

SpmmBlock SpmmMatrix::block(size_t chunk, size_t block) const {
  const size_t index = chunk * blocks_ + block;
  return {singles_.view(index), quads_.view(index)};
}

template <class Entry>
void SpmmMatrix::Packed<Entry>::begin_row(uint32_t row, size_t count) {
  if (runs.size() == starts.back().run || runs.back().entries_per_row != count) {
    runs.push_back({0, static_cast<uint32_t>(count)});
  }
  ++runs.back().rows;
  rows.push_back(row);
}

template <class Entry>
SpmmRows<Entry> SpmmMatrix::Packed<Entry>::view(size_t block) const {
  const Start& start = starts[block];
  return {runs.data() + start.run, starts[block + 1].run - start.run, rows.data() + start.row,
          entries.data() + start.entry};
}

void SpmmMatrix::pack(const CsrMatrix& matrix, size_t chunk, size_t block) {
  const size_t taps = layout_.taps.size();
  const size_t first_channel = block * layout_.block_channels;
  const size_t last_channel = std::min(first_channel + layout_.block_channels, layout_.channels);
  std::vector<Row> rows;
  for (size_t row = first_row(chunk); row < first_row(chunk + 1); ++row) {
    rows.push_back({static_cast<uint32_t>(row - first_row(chunk)), {}, false});
  }
  for (const CsrMatrix::Block& source : matrix.blocks()) {
    const size_t end = source.first_column + matrix.block_columns();
    if (end <= first_channel * taps || source.first_column >= last_channel * taps) continue;
    const auto within = [&](size_t channel) {
      const size_t column = channel * taps;
      return column <= source.first_column ? 0 : column - source.first_column;
    };
    for (Row& row : rows) {
      const size_t at = first_row(chunk) + row.index;
      const auto begin = source.columns.begin() + source.row_start[at];
      const auto stop = source.columns.begin() + source.row_start[at + 1];
      const auto from = std::lower_bound(begin, stop, within(first_channel));
      const auto to = std::lower_bound(from, stop, within(last_channel));
      for (auto column = from; column != to; ++column) {
        const size_t whole = source.first_column + *column - first_channel * taps;
        const size_t offset = whole / taps * layout_.channel_stride + layout_.taps[whole % taps];
        row.entries.push_back({static_cast<uint32_t>(offset), source.values[column - source.columns.begin()]});
      }
    }
  }
  for (Row& row : rows) {
    std::sort(row.entries.begin(), row.entries.end(),
              [](const SpmmEntry& a, const SpmmEntry& b) { return a.offset < b.offset; });
  }
  // Groups of four rows that have enough columns in common; the other rows are packed singly.
  std::vector<std::pair<uint32_t, std::vector<SpmmQuad>>> quads;
  for (size_t i = 0; i + kQuadRows <= rows.size(); i += kQuadRows) {
    size_t count = 0;
    for (size_t r = 0; r < kQuadRows; ++r) count += rows[i + r].entries.size();
    const auto most = static_cast<size_t>(static_cast<double>(count) * kMaxQuadFill / kQuadRows);
    std::vector<SpmmQuad> quad;
    size_t next[kQuadRows] = {};
    while (count > 0 && quad.size() <= most) {
      SpmmQuad shared{UINT32_MAX, {}};
      for (size_t r = 0; r < kQuadRows; ++r) {
        const std::vector<SpmmEntry>& entries = rows[i + r].entries;
        if (next[r] < entries.size()) shared.offset = std::min(shared.offset, entries[next[r]].offset);
      }
      for (size_t r = 0; r < kQuadRows; ++r) {
        const std::vector<SpmmEntry>& entries = rows[i + r].entries;
        if (next[r] == entries.size() || entries[next[r]].offset != shared.offset) continue;
        shared.values[r] = entries[next[r]++].value;
        --count;
      }
      quad.push_back(shared);
    }
    if (quad.empty() || quad.size() > most) continue;
    quads.emplace_back(rows[i].index, std::move(quad));
    for (size_t r = 0; r < kQuadRows; ++r) rows[i + r].in_quad = true;
  }
  std::stable_sort(quads.begin(), quads.end(),
                   [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
  for (const auto& [row, entries] : quads) {
    quads_.begin_row(row, entries.size());
    quads_.entries.insert(quads_.entries.end(), entries.begin(), entries.end());
  }
  quads_.end_block();
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.entries.size() < b.entries.size(); });
  for (const Row& row : rows) {
    if (row.in_quad || (row.entries.empty() && block > 0 && block + 1 < blocks_)) continue;
    singles_.begin_row(row.index, row.entries.size());
    singles_.entries.insert(singles_.entries.end(), row.entries.begin(), row.entries.end());
  }
  singles_.end_block();
}

}  // namespace onnxprune
