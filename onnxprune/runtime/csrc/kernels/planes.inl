// Operators on planes: pooling, and convolutions of each channel with a filter of its own.
#pragma once

#include "bit_cast.h"
#include "kernels.h"
#include "padded_rows.inl"
#include "preconditions.h"
#include "unroll.h"

namespace onnxprune {
namespace {

template <class V>
struct Larger {
  void operator()(V& a, const V& b) const { a.raise(b); }
  void operator()(float& a, float b) const { a = a < b ? b : a; }
};

template <class V>
struct Plus {
  void operator()(V& a, const V& b) const { a.add(b); }
  void operator()(float& a, float b) const { a += b; }
};

// Joins the columns of the windows of a row.
template <class V, size_t kParts, class Join>
void pool_columns(const Window& window, const Taps<kParts>& taps, const float* row, float* to, const Join& join) {
  each_vector<V>(window.out_columns, [&](size_t column, size_t count) {
    V joined = V::load_unaligned(row + taps[0] + column);
    for (size_t tap = 1; tap < window.width; ++tap) join(joined, V::load_unaligned(row + taps[tap] + column));
    store_first(joined, count, to + column);
  });
}

// Joins the rows of windows first, then their columns, some rows at a time: what is just written is slow to read.
template <class V, size_t kParts, class Join>
void pool_rows(const Window& window, const PaddedRows& padded, const float* from, float* memory, float* to,
               float neutral_value, const Join& join) {
  const V neutral = V::broadcast(&neutral_value);
  const Taps<kParts> taps(padded);
  for (size_t first = 0; first < window.out_rows; first += kPooledRows) {
    const size_t last = first + kPooledRows < window.out_rows ? first + kPooledRows : window.out_rows;
    float* row = memory;
    for (size_t r = first; r < last; ++r, row += padded.pitch) {
      const Range rows = inside(r, window.row_stride, window.height, window.begin_row, window.rows);
      put_row(padded, window.columns, neutral, row, [&](size_t column, size_t count) {
        V joined = neutral;
        for (size_t source = rows.from; source < rows.to; ++source) {
          const float* const place = from + source * window.columns + column;
          join(joined, count == V::kLanes ? V::load_unaligned(place) : V::load_some(place, count, neutral));
        }
        return joined;
      });
    }
    put_gap(padded, neutral, row);
    row = memory;
    for (size_t r = first; r < last; ++r, row += padded.pitch, to += window.out_columns) {
      if (window.column_stride == kParts) {
        pool_columns<V>(window, taps, row, to, join);
        continue;
      }
      for (size_t column = 0; column < window.out_columns; ++column) {
        const float* const place = row + taps[0] + column * window.column_stride;
        to[column] = place[0];
        for (size_t tap = 1; tap < window.width; ++tap) join(to[column], place[tap]);
      }
    }
  }
}

template <class V, class Join>
void pool_plane(const Window& window, const PaddedRows& padded, const float* from, float* memory, float* to,
                float neutral, const Join& join) {
  if (padded.parts == 2) return pool_rows<V, 2>(window, padded, from, memory, to, neutral, join);
  pool_rows<V, 1>(window, padded, from, memory, to, neutral, join);
}

template <class V>
void pool(const Window& window, const PaddedRows& padded, Pooling pooling, const float* from, float* memory,
          float* to) {
  assert(is_aligned(memory) && padded.parts == (window.column_stride == 2 ? 2 : 1));
  if (pooling == Pooling::kMax) {
    return pool_plane<V>(window, padded, from, memory, to, bit_cast<float>(0xff800000u), Larger<V>{});
  }
  pool_plane<V>(window, padded, from, memory, to, 0.0f, Plus<V>{});
  // How many columns each window has inside.
  float* const counts = memory;
  for (size_t c = 0; c < window.out_columns; ++c) {
    const Range columns = inside(c, window.column_stride, window.width, window.begin_column, window.columns);
    counts[c] = static_cast<float>(pooling == Pooling::kMean ? columns.to - columns.from : window.width);
  }
  for (size_t r = 0; r < window.out_rows; ++r, to += window.out_columns) {
    const Range rows = inside(r, window.row_stride, window.height, window.begin_row, window.rows);
    const auto height = static_cast<float>(pooling == Pooling::kMean ? rows.to - rows.from : window.height);
    for (size_t c = 0; c < window.out_columns; ++c) to[c] /= height * counts[c];
  }
}

// Rows of a plane for `depthwise`; rows are counted with the padding.
template <class V>
void pad(const Window& window, const PaddedRows& padded, const float* from, size_t first, size_t last, float* to) {
  assert(is_aligned(to));
  const V zero = V::zero();
  for (size_t r = first; r < last; ++r, to += padded.pitch) {
    if (r < window.begin_row || r >= window.begin_row + window.rows) {
      put_row(padded, window.columns, zero, to, [&](size_t, size_t) { return zero; });
      continue;
    }
    const float* const line = from + (r - window.begin_row) * window.columns;
    put_row(padded, window.columns, zero, to, [&](size_t column, size_t count) {
      return count == V::kLanes ? V::load_unaligned(line + column) : V::load_some(line + column, count, zero);
    });
  }
  put_gap(padded, zero, to);
}

// Rows of a result that share the rows they read; as many as the registers have room for.
template <class V>
constexpr size_t kSharingRows = V::kAccumulators >= 24 ? 4 : V::kAccumulators >= 12 ? 2 : 1;

// kRows rows of a result. Sizes known to the compiler keep the filter in registers.
template <class V, size_t kSize, size_t kStride, size_t kRows>
void depthwise_rows(const Window& window, size_t pitch, const Filter& filter, const Taps<kStride>& taps,
                    const float* from, float* to) {
  constexpr size_t kTaps = kSize * kSize;
  const size_t columns = window.out_columns;
  V factors[kTaps];
  ONNXPRUNE_UNROLL
  for (size_t i = 0; i < kTaps; ++i) factors[i] = V::broadcast(filter.weight + i);
  const float* places[kSize];
  ONNXPRUNE_UNROLL
  for (size_t w = 0; w < kSize; ++w) places[w] = from + taps[w];
  const V bias = V::broadcast(&filter.bias);
  const V low = V::broadcast(&filter.low);
  const V high = V::broadcast(&filter.high);
  for (size_t column = 0;;) {
    V sums[kRows];
    ONNXPRUNE_UNROLL
    for (size_t r = 0; r < kRows; ++r) sums[r] = bias;
    ONNXPRUNE_UNROLL
    for (size_t row = 0; row < (kRows - 1) * kStride + kSize; ++row) {
      V line[kSize];
      ONNXPRUNE_UNROLL
      for (size_t w = 0; w < kSize; ++w) line[w] = V::hold(places[w] + row * pitch + column);
      ONNXPRUNE_UNROLL
      for (size_t r = 0; r < kRows; ++r) {
        if (row < r * kStride || row >= r * kStride + kSize) continue;
        ONNXPRUNE_UNROLL
        for (size_t w = 0; w < kSize; ++w) sums[r].add_product(factors[(row - r * kStride) * kSize + w], line[w]);
      }
    }
    ONNXPRUNE_UNROLL
    for (size_t r = 0; r < kRows; ++r) {
      if (filter.clips) sums[r].clip(low, high);
      store_first(sums[r], columns, to + r * columns + column);
    }
    if (column + V::kLanes >= columns) return;
    column = column + 2 * V::kLanes <= columns ? column + V::kLanes : columns - V::kLanes;
  }
}

// A row of a result of a window of any size.
template <class V, size_t kStride>
void depthwise_row(const Window& window, size_t pitch, const Filter& filter, const Taps<kStride>& taps,
                   const float* from, float* to) {
  each_vector<V>(window.out_columns, [&](size_t column, size_t count) {
    V sum = V::broadcast(&filter.bias);
    const float* factor = filter.weight;
    for (size_t h = 0; h < window.height; ++h) {
      for (size_t w = 0; w < window.width; ++w, ++factor) {
        sum.add_product(V::broadcast(factor), from + h * pitch + taps[w] + column);
      }
    }
    if (filter.clips) sum.clip(V::broadcast(&filter.low), V::broadcast(&filter.high));
    store_first(sum, count, to + column);
  });
}

// A size of 0 is that of the window.
template <class V, size_t kSize, size_t kStride>
void depthwise_all(const Window& window, const PaddedRows& padded, const Filter& filter, const float* from, size_t rows,
                   float* to) {
  const Taps<kStride> taps(padded);
  const size_t pitch = padded.pitch;
  const size_t step = window.row_stride * pitch;
  const size_t columns = window.out_columns;
  if constexpr (kSize == 0) {
    for (size_t r = 0; r < rows; ++r) {
      depthwise_row<V, kStride>(window, pitch, filter, taps, from + r * step, to + r * columns);
    }
  } else {
    constexpr size_t kTogether = kSharingRows<V>;
    size_t r = 0;
    for (; rows >= kTogether && r < rows; r += kTogether) {
      if (r + kTogether > rows) r = rows - kTogether;
      depthwise_rows<V, kSize, kStride, kTogether>(window, pitch, filter, taps, from + r * step, to + r * columns);
    }
    for (; r < rows; ++r) {
      depthwise_rows<V, kSize, kStride, 1>(window, pitch, filter, taps, from + r * step, to + r * columns);
    }
  }
}

template <class V>
void depthwise(const Window& window, const PaddedRows& padded, const Filter& filter, const float* from, size_t rows,
               float* to) {
  assert(window.column_stride == 1 || window.column_stride == 2);
  assert(padded.parts == window.column_stride);
  using Function = void (*)(const Window&, const PaddedRows&, const Filter&, const float*, size_t, float*);
  constexpr Function kFunctions[2][3] = {
      {depthwise_all<V, 0, 1>, depthwise_all<V, 3, 1>, depthwise_all<V, 5, 1>},
      {depthwise_all<V, 0, 2>, depthwise_all<V, 3, 2>, depthwise_all<V, 5, 2>},
  };
  const bool is_square = window.height == window.width && window.row_stride == window.column_stride;
  const size_t size = is_square && window.width == 3 ? 1 : is_square && window.width == 5 ? 2 : 0;
  kFunctions[window.column_stride - 1][size](window, padded, filter, from, rows, to);
}

}  // namespace
}  // namespace onnxprune
