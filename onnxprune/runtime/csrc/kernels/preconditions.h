// The kernels' preconditions, for assertions at their entries; release builds do not check them.
#pragma once

#include <assert.h>

#include "kernels.h"

namespace onnxprune {
namespace {

// Alignment of panels and sums, in bytes.
constexpr size_t kAlignment = 64;

[[maybe_unused]] inline bool is_aligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % kAlignment == 0;
}

// No run is empty, runs of shorter rows come first, and offsets are multiples of `step`.
template <class Entry>
[[maybe_unused]] bool is_valid(const SpmmRows<Entry>& block, size_t step) {
  if (block.run_count == 0) return true;
  if (block.runs == nullptr || block.rows == nullptr) return false;
  size_t entries = 0;
  for (size_t i = 0; i < block.run_count; ++i) {
    const SpmmRun& run = block.runs[i];
    if (run.rows == 0 || (i > 0 && run.entries_per_row <= block.runs[i - 1].entries_per_row)) return false;
    entries += static_cast<size_t>(run.rows) * run.entries_per_row;
  }
  if (entries > 0 && block.entries == nullptr) return false;
  for (size_t i = 0; i < entries; ++i) {
    if (block.entries[i].offset % step != 0) return false;
  }
  return true;
}

// Rows [first, last) do not overlap, and have their entries.
[[maybe_unused]] inline bool is_valid(const SpmvBlock& block, size_t first, size_t last) {
  if (first > last || block.row_start == nullptr) return false;
  for (size_t row = first; row < last; ++row) {
    if (block.row_start[row] > block.row_start[row + 1]) return false;
  }
  return block.row_start[first] == block.row_start[last] || (block.columns != nullptr && block.values != nullptr);
}

[[maybe_unused]] inline bool is_valid(const Copies& copies) {
  for (size_t kind = 0; kind < kCopyKinds; ++kind) {
    if (copies.begin[kind] > copies.begin[kind + 1]) return false;
  }
  return copies.begin[0] == copies.begin[kCopyKinds] || copies.copies != nullptr;
}

}  // namespace
}  // namespace onnxprune
