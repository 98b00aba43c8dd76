// Operators on planes: pooling, and convolutions of each channel with a filter of its own.
#pragma once

#include <string.h>

#include "bit_cast.h"
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
  return {start > begin ? start - begin : 0, end < size ? end : size};
}

inline float larger(float a, float b) { return a < b ? b : a; }

template <class Join>
void pool_rows(const Window& window, const float* from, float* row, float* to, float neutral, const Join& join) {
  const size_t reach = window.reach();
  for (size_t r = 0; r < window.out_rows; ++r, to += window.out_columns) {
    const Range rows = inside(r, window.row_stride, window.height, window.begin_row, window.rows);
    for (size_t i = 0; i < reach; ++i) row[i] = neutral;
    float* const plane = row + window.begin_column;
    const size_t within = reach - window.begin_column;
    const size_t columns = within < window.columns ? within : window.columns;
    for (size_t source = rows.from; source < rows.to; ++source) {
      const float* const line = from + source * window.columns;
      for (size_t i = 0; i < columns; ++i) plane[i] = join(plane[i], line[i]);
    }
    // Constant strides, so that compilers vectorize the loops.
    const auto across = [&](size_t stride) {
      for (size_t i = 0; i < window.out_columns; ++i) to[i] = row[i * stride];
      for (size_t k = 1; k < window.width; ++k) {
        for (size_t i = 0; i < window.out_columns; ++i) to[i] = join(to[i], row[i * stride + k]);
      }
    };
    if (window.column_stride == 1) {
      across(1);
    } else if (window.column_stride == 2) {
      across(2);
    } else {
      across(window.column_stride);
    }
  }
}

inline void pool(const Window& window, Pooling pooling, const float* from, float* row, float* to) {
  assert(window.reach() > window.begin_column);
  if (pooling == Pooling::kMax) return pool_rows(window, from, row, to, bit_cast<float>(0xff800000u), larger);
  pool_rows(window, from, row, to, 0.0f, [](float a, float b) { return a + b; });
  for (size_t r = 0; r < window.out_rows; ++r) {
    const Range rows = inside(r, window.row_stride, window.height, window.begin_row, window.rows);
    for (size_t c = 0; c < window.out_columns; ++c, ++to) {
      const Range columns = inside(c, window.column_stride, window.width, window.begin_column, window.columns);
      const size_t count = pooling == Pooling::kMeanWithPadding ? window.height * window.width
                                                                : (rows.to - rows.from) * (columns.to - columns.from);
      *to /= static_cast<float>(count);
    }
  }
}

// With sizes known to the compiler, which keeps the filter in registers; a size of 0 is that of the window.
template <class V, size_t kSize, size_t kStride>
void depthwise_rows(const Window& window, const float* weight, float bias, const float* from, size_t pitch, float* to) {
  const size_t height = kSize == 0 ? window.height : kSize;
  const size_t width = kSize == 0 ? window.width : kSize;
  for (size_t r = 0; r < window.out_rows; ++r, to += window.out_columns) {
    const float* const line = from + r * window.row_stride * pitch;
    const auto sum_at = [&](size_t column) {
      V sum = V::broadcast(&bias);
      for (size_t h = 0; h < height; ++h) {
        const float* const place = line + h * pitch + column * kStride;
        for (size_t w = 0; w < width; ++w) {
          const V factor = V::broadcast(weight + h * width + w);
          if (kStride == 1) {
            sum.add_product(factor, place + w);
          } else {
            sum.add_product(factor, V::load_every_other(place + w));
          }
        }
      }
      return sum;
    };
    if (window.out_columns < V::kLanes) {
      float sums[V::kLanes];
      sum_at(0).store_unaligned(sums);
      memcpy(to, sums, window.out_columns * sizeof(float));
      continue;
    }
    size_t column = 0;
    for (; column + V::kLanes <= window.out_columns; column += V::kLanes) sum_at(column).store_unaligned(to + column);
    if (column < window.out_columns) {
      column = window.out_columns - V::kLanes;
      sum_at(column).store_unaligned(to + column);
    }
  }
}

template <class V>
void depthwise(const Window& window, const float* weight, float bias, const float* from, size_t pitch, float* to) {
  assert(window.column_stride == 1 || window.column_stride == 2);
  assert(pitch >= window.reach());
  const bool is_square = window.height == window.width;
  const bool steps = window.column_stride == 2;
  if (is_square && window.width == 3) {
    return steps ? depthwise_rows<V, 3, 2>(window, weight, bias, from, pitch, to)
                 : depthwise_rows<V, 3, 1>(window, weight, bias, from, pitch, to);
  }
  if (is_square && window.width == 5) {
    return steps ? depthwise_rows<V, 5, 2>(window, weight, bias, from, pitch, to)
                 : depthwise_rows<V, 5, 1>(window, weight, bias, from, pitch, to);
  }
  return steps ? depthwise_rows<V, 0, 2>(window, weight, bias, from, pitch, to)
               : depthwise_rows<V, 0, 1>(window, weight, bias, from, pitch, to);
}

}  // namespace
}  // namespace onnxprune
