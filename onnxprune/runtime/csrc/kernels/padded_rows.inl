// Rows of a plane with their padding in place, aligned for vectors, and columns apart where windows step over some.
#pragma once

#include "kernels.h"
#include "preconditions.h"

namespace onnxprune {
namespace {

struct Range {
  size_t from;
  size_t to;
};

// What of the window at `place` lies within `size`, which `begin` of padding precede.
inline Range inside(size_t place, size_t stride, size_t extent, size_t begin, size_t size) {
  const size_t start = place * stride;
  const size_t end = start + extent > begin ? start + extent - begin : 0;
  const size_t from = start > begin ? start - begin : 0;
  const size_t to = end < size ? end : size;
  return {from, to < from ? from : to};
}

template <class V>
void put_gap(const PaddedRows& rows, const V& neutral, float* to) {
  for (size_t i = 0; i < rows.gap; i += V::kLanes) neutral.store(to + i);
}

// A row, which `load(column, count)` gives as vectors, whose lanes from `count` on are `neutral`.
template <class V, class Load>
void put_row(const PaddedRows& rows, size_t columns, const V& neutral, float* to, const Load& load) {
  put_gap(rows, neutral, to);
  float* const data = to + rows.gap;
  size_t column = 0;
  if (rows.parts == 1) {
    for (; column + V::kLanes <= columns; column += V::kLanes) load(column, V::kLanes).store(data + column);
    if (column < columns) load(column, columns - column).store(data + column);
    return;
  }
  put_gap(rows, neutral, to + rows.part);
  V even;
  V odd;
  const auto put = [&](const V& first, const V& second) {
    V::separate(first, second, even, odd);
    even.store(data + column / 2);
    odd.store(data + rows.part + column / 2);
  };
  for (; column + 2 * V::kLanes <= columns; column += 2 * V::kLanes) {
    put(load(column, V::kLanes), load(column + V::kLanes, V::kLanes));
  }
  if (column == columns) return;
  const size_t left = columns - column;
  if (left <= V::kLanes) {
    put(load(column, left), neutral);
  } else {
    put(load(column, V::kLanes), load(column + V::kLanes, left - V::kLanes));
  }
}

// The places of a window's columns.
template <size_t kParts>
struct Taps {
  const PaddedRows& padded;

  explicit Taps(const PaddedRows& rows) : padded(rows) { assert(rows.parts == kParts); }
  size_t operator[](size_t column) const { return padded.place[column % kParts] + column / kParts; }
};

// Calls `work(column)` for vectors of columns that cover all of them, with the number of floats to keep where a row is
// shorter than a vector.
template <class V, class Work>
void each_vector(size_t columns, const Work& work) {
  if (columns < V::kLanes) return work(0, columns);
  size_t column = 0;
  for (; column + V::kLanes <= columns; column += V::kLanes) work(column, V::kLanes);
  if (column < columns) work(columns - V::kLanes, V::kLanes);
}

// As many of the vector's lanes as there are.
template <class V>
void store_first(const V& vector, size_t count, float* to) {
  if (count >= V::kLanes) return vector.store_unaligned(to);
  vector.store_some(to, count);
}

}  // namespace
}  // namespace onnxprune
