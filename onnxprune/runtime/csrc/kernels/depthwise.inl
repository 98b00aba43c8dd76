// Convolutions of a plane with one filter, from the plane as it is: loads whose masks leave out what is not in a row
// take the place of padding.
#pragma once

#include "kernels.h"
#include "preconditions.h"
#include "unroll.h"

namespace onnxprune {
namespace {

// kRows rows of results from `first_row` on. Two neighboring vectors of an input row are loaded, and the columns that
// each column of the filter reads are picked from both.
template <class V, size_t kSize, size_t kStride, size_t kRows>
void direct_rows(const Window& window, const Filter& filter, const float* from, size_t first_row, float* to) {
  constexpr size_t kLanes = V::kLanes;
  // Results of a vector: as many as two vectors of the input suffice for.
  constexpr size_t kMost = (2 * kLanes - kSize) / kStride + 1;
  constexpr size_t kResults = kMost < kLanes ? kMost : kLanes;
  const size_t columns = window.out_columns;
  const size_t first_input = first_row * kStride;
  V factors[kSize * kSize];
  ONNXPRUNE_UNROLL
  for (size_t i = 0; i < kSize * kSize; ++i) factors[i] = V::broadcast(filter.weight + i);
  typename V::Places places[kSize];
  ONNXPRUNE_UNROLL
  for (size_t w = 0; w < kSize; ++w) places[w] = V::places(w, kStride);
  const V bias = V::broadcast(&filter.bias);
  const V low = V::broadcast(&filter.low);
  const V high = V::broadcast(&filter.high);
  for (size_t column = 0;;) {
    const ptrdiff_t start = static_cast<ptrdiff_t>(column * kStride) - static_cast<ptrdiff_t>(window.begin_column);
    const auto size = static_cast<ptrdiff_t>(window.columns);
    const auto near_lanes = V::lanes_between(-start, size - start);
    const auto far_lanes = V::lanes_between(-start - static_cast<ptrdiff_t>(kLanes),
                                            size - start - static_cast<ptrdiff_t>(kLanes));
    V sums[kRows];
    ONNXPRUNE_UNROLL
    for (size_t r = 0; r < kRows; ++r) sums[r] = bias;
    ONNXPRUNE_UNROLL
    for (size_t row = 0; row < (kRows - 1) * kStride + kSize; ++row) {
      const size_t input = first_input + row;
      if (input < window.begin_row || input >= window.begin_row + window.rows) continue;
      const float* const line = from + static_cast<ptrdiff_t>((input - window.begin_row) * window.columns) + start;
      const V near = V::load_lanes(near_lanes, line);
      const V far = V::load_lanes(far_lanes, line + kLanes);
      V picked[kSize];
      ONNXPRUNE_UNROLL
      for (size_t w = 0; w < kSize; ++w) {
        picked[w] = kStride == 1 && w == 0 ? near : V::pick(near, places[w], far);
      }
      ONNXPRUNE_UNROLL
      for (size_t r = 0; r < kRows; ++r) {
        if (row < r * kStride || row >= r * kStride + kSize) continue;
        ONNXPRUNE_UNROLL
        for (size_t w = 0; w < kSize; ++w) sums[r].add_product(factors[(row - r * kStride) * kSize + w], picked[w]);
      }
    }
    const size_t count = columns - column < kResults ? columns - column : kResults;
    ONNXPRUNE_UNROLL
    for (size_t r = 0; r < kRows; ++r) {
      if (filter.clips) sums[r].clip(low, high);
      if (count == kLanes) {
        sums[r].store_unaligned(to + r * columns + column);
      } else {
        sums[r].store_some(to + r * columns + column, count);
      }
    }
    column += count;
    if (column == columns) return;
  }
}

// kTogether rows of results at a time, which share the rows they read.
template <class V, size_t kSize, size_t kStride, size_t kTogether>
void direct_bands(const Window& window, const Filter& filter, const float* from, float* to) {
  const size_t rows = window.out_rows;
  size_t r = 0;
  for (; rows >= kTogether && r < rows; r += kTogether) {
    if (r + kTogether > rows) r = rows - kTogether;
    direct_rows<V, kSize, kStride, kTogether>(window, filter, from, r, to + r * window.out_columns);
  }
  for (; r < rows; ++r) direct_rows<V, kSize, kStride, 1>(window, filter, from, r, to + r * window.out_columns);
}

// The planes of images of 224 x 224 have sevens of rows, down to the last.
template <class V, size_t kSize, size_t kStride>
void direct_plane(const Window& window, const Filter& filter, const float* from, float* to) {
  if (window.out_rows % 7 == 0) {
    direct_bands<V, kSize, kStride, 7>(window, filter, from, to);
  } else {
    direct_bands<V, kSize, kStride, 4>(window, filter, from, to);
  }
}

template <class V>
void depthwise_direct(const Window& window, const Filter& filter, const float* from, float* to) {
  assert(is_direct(window));
  using Function = void (*)(const Window&, const Filter&, const float*, float*);
  constexpr Function kFunctions[2][2] = {
      {direct_plane<V, 3, 1>, direct_plane<V, 3, 2>},
      {direct_plane<V, 5, 1>, direct_plane<V, 5, 2>},
  };
  kFunctions[window.width == 5][window.column_stride - 1](window, filter, from, to);
}

}  // namespace
}  // namespace onnxprune
