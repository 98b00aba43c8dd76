// Sparse times dense, a panel of columns at a time: one row of the weight x 1 to kMaxVectors vectors of columns.
//
// Bound by loads: of an entry's kVectors + 1, all but the broadcast are operands of an FMA. Narrow tiles have too
// few accumulators to hide the FMA's latency (4 cycles, two a cycle), so they get a second set.
#pragma once

#include "kernels.h"

namespace onnxprune {
namespace {

template <class V, size_t kVectors>
void spmm_tile(const SpmmBlock& block, const float* panel, float* sums) {
  constexpr size_t kPitch = kVectors * V::kLanes;
  constexpr bool kTwoSets = 2 * kVectors <= V::kAccumulators;
  const uint32_t* row = block.rows;
  const SpmmEntry* entry = block.entries;
  for (const SpmmRun *run = block.runs, *last_run = run + block.run_count; run != last_run; ++run) {
    const size_t pairs = run->entries_per_row / 2;
    const bool odd = run->entries_per_row % 2 != 0;
    for (const uint32_t* last_row = row + run->rows; row != last_row; ++row) {
      float* sum = sums + *row * kPitch;
      V even_set[kVectors];
      V odd_set[kTwoSets ? kVectors : 1];
      for (size_t i = 0; i < kVectors; ++i) even_set[i] = V::load(sum + i * V::kLanes);
      if (kTwoSets) {
        for (size_t i = 0; i < kVectors; ++i) odd_set[i] = V::zero();
      }
      for (size_t pair = 0; pair < pairs; ++pair, entry += 2) {
        const float* first = panel + entry[0].column * kPitch;
        const float* second = panel + entry[1].column * kPitch;
        const V first_value = V::broadcast(&entry[0].value);
        const V second_value = V::broadcast(&entry[1].value);
        for (size_t i = 0; i < kVectors; ++i) even_set[i].add_product(first_value, first + i * V::kLanes);
        for (size_t i = 0; i < kVectors; ++i) {
          (kTwoSets ? odd_set : even_set)[i].add_product(second_value, second + i * V::kLanes);
        }
      }
      if (odd) {
        const float* last = panel + entry->column * kPitch;
        const V value = V::broadcast(&entry->value);
        for (size_t i = 0; i < kVectors; ++i) even_set[i].add_product(value, last + i * V::kLanes);
        ++entry;
      }
      for (size_t i = 0; i < kVectors; ++i) {
        if (kTwoSets) even_set[i].add(odd_set[i]);
        even_set[i].store(sum + i * V::kLanes);
      }
    }
  }
}

template <class V>
void spmm(const SpmmBlock& block, size_t vectors, const float* panel, float* sums) {
  static_assert(V::kMaxVectors == 8, "a case for each width");
  switch (vectors) {
    case 1: return spmm_tile<V, 1>(block, panel, sums);
    case 2: return spmm_tile<V, 2>(block, panel, sums);
    case 3: return spmm_tile<V, 3>(block, panel, sums);
    case 4: return spmm_tile<V, 4>(block, panel, sums);
    case 5: return spmm_tile<V, 5>(block, panel, sums);
    case 6: return spmm_tile<V, 6>(block, panel, sums);
    case 7: return spmm_tile<V, 7>(block, panel, sums);
    default: return spmm_tile<V, 8>(block, panel, sums);
  }
}

}  // namespace
}  // namespace onnxprune
