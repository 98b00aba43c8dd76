// Moving the dense operand into panels and results out of them.
#pragma once

#include "kernels.h"

namespace onnxprune {
namespace {

template <class V>
void transpose(const float* from, size_t from_stride, size_t rows, size_t columns, float* to, size_t to_stride) {
  constexpr size_t kSide = V::kTransposeSide;
  const size_t whole_rows = rows - rows % kSide;
  const size_t whole_columns = columns - columns % kSide;
  const auto square = [&](size_t row, size_t column) {
    V::transpose_square(from + row * from_stride + column, from_stride, to + column * to_stride + row, to_stride);
  };
  // Along the rows that lie farther apart: theirs fall into the same sets of the first cache, where a line must be
  // used up before it is driven out.
  if (from_stride > to_stride) {
    for (size_t row = 0; row < whole_rows; row += kSide) {
      for (size_t column = 0; column < whole_columns; column += kSide) square(row, column);
    }
  } else {
    for (size_t column = 0; column < whole_columns; column += kSide) {
      for (size_t row = 0; row < whole_rows; row += kSide) square(row, column);
    }
  }
  for (size_t row = 0; row < rows; ++row) {
    for (size_t column = row < whole_rows ? whole_columns : 0; column < columns; ++column) {
      to[column * to_stride + row] = from[row * from_stride + column];
    }
  }
}

// Channels by which prefetches run ahead of the packing.
constexpr size_t kChannelsAhead = 16;

template <class V>
void gather(const float* plane, size_t tap, const Columns& columns, size_t rows, size_t vectors, float* panel) {
  for (size_t row = 0; row < rows; ++row, panel += vectors * V::kLanes) {
    const Piece* first_piece = columns.first_pieces + tap * vectors;
    for (size_t i = 0; i < vectors; ++i) {
      V vector = V::zero();
      vector.load_lanes(plane + first_piece[i].offset, first_piece[i].mask);
      vector.store(panel + i * V::kLanes);
    }
    const Piece* const more_end = columns.more_pieces + columns.more_start[tap + 1];
    for (const Piece* piece = columns.more_pieces + columns.more_start[tap]; piece != more_end; ++piece) {
      V vector = V::load(panel + piece->vector * V::kLanes);
      vector.load_lanes(plane + piece->offset, piece->mask);
      vector.store(panel + piece->vector * V::kLanes);
    }
    if (++tap == columns.taps) {
      tap = 0;
      for (size_t i = 0; i < vectors; ++i) {
        V::prefetch(plane + first_piece[i].offset + kChannelsAhead * columns.channel_stride);
      }
      plane += columns.channel_stride;
    }
  }
}

}  // namespace
}  // namespace onnxprune
