// A dense convolution of few input channels: those of images, at the beginning of networks.
#pragma once

#include "kernels.h"
#include "padded_rows.inl"
#include "unroll.h"

namespace onnxprune {
namespace {

// Up to `columns` columns of a row, in kVectors vectors, of kRows channels. Each load of the planes serves all channels,
// each weight all vectors.
template <class V, size_t kRows, size_t kVectors>
void dense_block(const DenseFilter& filter, const float* weight, const float* bias, size_t channels, size_t columns,
                 const float* from, float* to, size_t to_stride) {
  V sums[kRows][kVectors];
  ONNXPRUNE_UNROLL
  for (size_t r = 0; r < kRows; ++r) {
    ONNXPRUNE_UNROLL
    for (size_t i = 0; i < kVectors; ++i) sums[r][i] = V::broadcast(bias + r);
  }
  for (size_t tap = 0; tap < filter.taps; ++tap, weight += kDenseChannels) {
    const float* const place = from + filter.places[tap];
    V line[kVectors];
    ONNXPRUNE_UNROLL
    for (size_t i = 0; i < kVectors; ++i) line[i] = V::hold(place + i * V::kLanes);
    ONNXPRUNE_UNROLL
    for (size_t r = 0; r < kRows; ++r) {
      const V factor = V::broadcast(weight + r);
      ONNXPRUNE_UNROLL
      for (size_t i = 0; i < kVectors; ++i) sums[r][i].add_product(factor, line[i]);
    }
  }
  const V low = V::broadcast(&filter.low);
  const V high = V::broadcast(&filter.high);
  ONNXPRUNE_UNROLL
  for (size_t r = 0; r < kRows; ++r) {
    if (r >= channels) return;
    ONNXPRUNE_UNROLL
    for (size_t i = 0; i < kVectors; ++i) {
      if (filter.clips) sums[r][i].clip(low, high);
      store_first(sums[r][i], columns - i * V::kLanes, to + r * to_stride + i * V::kLanes);
    }
  }
}

// As many as the registers have room for.
template <class V>
constexpr size_t kDenseVectors = V::kAccumulators >= 12 ? 3 : 1;

template <class V>
void dense(const DenseFilter& filter, size_t columns, const float* from, float* to, size_t to_stride) {
  constexpr size_t kRows = V::kAccumulators >= 24 ? kDenseChannels : kDenseChannels / 2;
  constexpr size_t kMost = kDenseVectors<V>;
  for (size_t first = 0; first < filter.channels; first += kRows) {
    const size_t channels = filter.channels - first < kRows ? filter.channels - first : kRows;
    const float* const weight =
        filter.weight + first / kDenseChannels * kDenseChannels * filter.taps + first % kDenseChannels;
    const auto block = [&](auto vectors, size_t column) {
      dense_block<V, kRows, decltype(vectors)::value>(filter, weight, filter.bias + first, channels, columns - column,
                                                      from + column, to + first * to_stride + column, to_stride);
    };
    size_t column = 0;
    while (column < columns) {
      const size_t left = (columns - column + V::kLanes - 1) / V::kLanes;
      if (kMost >= 3 && (left == 3 || left > 4)) {
        block(Constant<kMost>{}, column);
        column += kMost * V::kLanes;
      } else if (kMost >= 2 && left >= 2) {
        block(Constant<kMost < 2 ? 1 : 2>{}, column);
        column += 2 * V::kLanes;
      } else {
        block(Constant<1>{}, column);
        column += V::kLanes;
      }
    }
  }
}

}  // namespace
}  // namespace onnxprune
