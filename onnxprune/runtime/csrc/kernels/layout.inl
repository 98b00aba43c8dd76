// Copies and transposes, which move the dense operand into panels and the results out of them.
#pragma once

#include <string.h>

#include "kernels.h"
#include "preconditions.h"

namespace onnxprune {
namespace {

template <class V>
void transpose(const float* from, size_t from_stride, size_t rows, size_t columns, float* to, size_t to_stride) {
  assert(rows == 0 || columns == 0 || (from != nullptr && to != nullptr));
  assert(rows <= 1 || from_stride >= columns);
  assert(columns <= 1 || to_stride >= rows);
  constexpr size_t kSide = V::kTransposeSide;
  const size_t whole_rows = rows - rows % kSide;
  const size_t whole_columns = columns - columns % kSide;
  const auto square = [&](size_t row, size_t column) {
    V::transpose_square(from + row * from_stride + column, from_stride, to + column * to_stride + row, to_stride);
  };
  // The inner loop runs along the rows with the larger stride: their lines fall into the same sets of the L1 cache, and
  // each must be used up before it is evicted.
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

// A memcpy of constant size, which compiles to a load and a store.
template <size_t kFloats>
void copy_floats(const float* from, float* to) {
  memcpy(to, from, kFloats * sizeof(float));
}

template <class V>
void copy(const Copies& copies, const float* from, size_t from_stride, size_t rows, float* to, size_t to_stride) {
  assert(is_valid(copies));
  assert(rows == 0 || copies.begin[0] == copies.begin[kCopyKinds] || (from != nullptr && to != nullptr));
  for (size_t row = 0; row < rows; ++row, from += from_stride, to += to_stride) {
    const Copy* one = copies.copies;
    const auto each = [&](CopyKind kind, auto&& move) {
      for (const Copy* const end = copies.copies + copies.begin[kind + 1]; one != end; ++one) {
        move(from + one->source, to + one->target);
      }
    };
    each(kVectors, [](const float* source, float* target) { V::load_unaligned(source).store_unaligned(target); });
    each(kEveryOther, [](const float* source, float* target) { V::load_every_other(source).store_unaligned(target); });
    each(kEights, copy_floats<8>);
    each(kFours, copy_floats<4>);
    each(kOnes, copy_floats<1>);
  }
}

}  // namespace
}  // namespace onnxprune
