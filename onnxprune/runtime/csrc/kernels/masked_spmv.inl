// Sparse matrix times one vector where many columns have entries: bits say which, and the values are spread to their
// columns, so that x is read as it is, without a gather. It takes as long for few entries as for many (Zen 4: 3 cycles
// for 16 columns).
#pragma once

#include "kernels.h"
#include "preconditions.h"
#include "unroll.h"

namespace onnxprune {
namespace {

template <class V>
void spmv_masked(const MaskedBlock& block, size_t first, size_t last, const float* x, float* sums) {
  // Each vector of a mask's columns has a sum of its own, as they would wait for each other.
  constexpr size_t kSums = kMaskColumns / V::kLanes;
  // Values by which prefetches run ahead.
  constexpr size_t kAhead = 1024;
  static_assert(kSums == 4, "sums are joined as four");
  assert(first <= last && block.row_start != nullptr);
  const size_t words = block.words();
  for (size_t row = first; row < last; ++row) {
    const uint64_t* const masks = block.masks + row * words;
    const float* values = block.values + block.row_start[row];
    V set[kSums];
    ONNXPRUNE_UNROLL
    for (size_t i = 0; i < kSums; ++i) set[i] = V::zero();
    for (size_t word = 0; word < words; ++word) {
      const float* const from = x + word * kMaskColumns;
      V::prefetch(values + kAhead);
      ONNXPRUNE_UNROLL
      for (size_t i = 0; i < kSums; ++i) {
        const auto lanes = static_cast<typename V::Mask>(masks[word] >> i * V::kLanes);
        // What is not multiplied is not read either: NaN and infinity do not count, nor is there x behind the last.
        set[i].add_product(V::spread(lanes, values), V::load_lanes(lanes, from + i * V::kLanes));
        values += V::count(lanes);
      }
    }
    set[1].add(set[3]);
    set[0].add(set[2]);
    set[0].add(set[1]);
    sums[row - first] += set[0].sum();
  }
}

}  // namespace
}  // namespace onnxprune
