// Sparse matrix times dense panel (SpMM). The register tile is one row of the weight x 1 to kMaxVectors vectors, or,
// where four rows have the same columns, four rows x up to kQuadVectors vectors.
//
// A single row is bound by loads: kVectors + 1 for each entry, all but the broadcast as memory operands of an FMA. Four
// rows share the loads of the panel and are bound by FMAs. A narrow tile has too few accumulators to hide the latency
// of FMAs (4 cycles, at two a cycle), so its entries alternate between several sets of accumulators.
#pragma once

#include "kernels.h"
#include "preconditions.h"

namespace onnxprune {
namespace {

// What a row's sums become: running sums for the next block.
template <class V>
struct StoreSums {
  template <size_t kVectors>
  void operator()(V* set, float* sum, uint32_t) const {
    for (size_t i = 0; i < kVectors; ++i) set[i].store(sum + i * V::kLanes);
  }
};

// Results, stored where they belong.
template <class V>
struct StoreResults {
  const SpmmResult& result;

  template <size_t kVectors>
  void operator()(V* set, float*, uint32_t row) const {
    float* const to = result.to + row * result.to_stride;
    if (result.addend != nullptr) {
      const float* const addend = result.addend + row * result.to_stride;
      for (size_t i = 0; i < kVectors; ++i) set[i].add(V::load_unaligned(addend + i * V::kLanes));
    }
    if (result.clips) {
      const V low = V::broadcast(&result.low);
      const V high = V::broadcast(&result.high);
      for (size_t i = 0; i < kVectors; ++i) set[i].clip(low, high);
    }
    for (size_t i = 0; i < kVectors; ++i) set[i].store_unaligned(to + i * V::kLanes);
  }
};

template <class V, size_t kVectors, class Store>
void spmm_singles(const SpmmRows<SpmmEntry>& block, const float* panel, const float* bias, float* sums,
                  const Store& store) {
  constexpr size_t kPitch = kVectors * V::kLanes;
  constexpr size_t kRoom = V::kAccumulators / kVectors;
  constexpr size_t kSets = kRoom >= 4 ? 4 : kRoom >= 2 ? 2 : 1;
  constexpr size_t kUnrolled = kSets == 1 ? 2 : kSets;
  const uint32_t* row = block.rows;
  const SpmmEntry* entry = block.entries;
  for (const SpmmRun *run = block.runs, *last_run = run + block.run_count; run != last_run; ++run) {
    const size_t whole = run->entries_per_row / kUnrolled * kUnrolled;
    const size_t rest = run->entries_per_row % kUnrolled;
    for (const uint32_t* last_row = row + run->rows; row != last_row; ++row) {
      float* const sum = sums + *row * kPitch;
      V set[kSets][kVectors];
      if (bias != nullptr) {
        for (size_t i = 0; i < kVectors; ++i) set[0][i] = V::broadcast(bias + *row);
      } else {
        for (size_t i = 0; i < kVectors; ++i) set[0][i] = V::load(sum + i * V::kLanes);
      }
      for (size_t s = 1; s < kSets; ++s) {
        for (size_t i = 0; i < kVectors; ++i) set[s][i] = V::zero();
      }
      for (const SpmmEntry* const end = entry + whole; entry != end; entry += kUnrolled) {
        for (size_t u = 0; u < kUnrolled; ++u) {
          const float* const from = panel + entry[u].offset;
          const auto value = V::factor(&entry[u].value);
          for (size_t i = 0; i < kVectors; ++i) set[u % kSets][i].add_product(value, from + i * V::kLanes);
        }
      }
      for (const SpmmEntry* const end = entry + rest; entry != end; ++entry) {
        const float* const from = panel + entry->offset;
        const auto value = V::factor(&entry->value);
        for (size_t i = 0; i < kVectors; ++i) set[0][i].add_product(value, from + i * V::kLanes);
      }
      for (size_t i = 0; i < kVectors; ++i) {
        if (kSets == 4) {
          set[1][i].add(set[3 % kSets][i]);
          set[0][i].add(set[2 % kSets][i]);
        }
        if (kSets > 1) set[0][i].add(set[1 % kSets][i]);
      }
      store.template operator()<kVectors>(set[0], sum, *row);
    }
  }
}

// `pitch` is the distance between rows of sums, in floats.
template <class V, size_t kVectors>
void spmm_quads(const SpmmRows<SpmmQuad>& block, const float* panel, const float* bias, float* sums, size_t pitch) {
  constexpr size_t kRows = 4;
  const uint32_t* row = block.rows;
  const SpmmQuad* entry = block.entries;
  for (const SpmmRun *run = block.runs, *last_run = run + block.run_count; run != last_run; ++run) {
    for (const uint32_t* last_row = row + run->rows; row != last_row; ++row) {
      float* const sum = sums + *row * pitch;
      V set[kRows][kVectors];
      for (size_t r = 0; r < kRows; ++r) {
        for (size_t i = 0; i < kVectors; ++i) {
          set[r][i] = bias != nullptr ? V::broadcast(bias + *row + r) : V::load(sum + r * pitch + i * V::kLanes);
        }
      }
      for (const SpmmQuad* const end = entry + run->entries_per_row; entry != end; ++entry) {
        V columns[kVectors];
        for (size_t i = 0; i < kVectors; ++i) columns[i] = V::load(panel + entry->offset + i * V::kLanes);
        for (size_t r = 0; r < kRows; ++r) {
          const auto value = V::factor(&entry->values[r]);
          for (size_t i = 0; i < kVectors; ++i) set[r][i].add_product(value, columns[i]);
        }
      }
      for (size_t r = 0; r < kRows; ++r) {
        for (size_t i = 0; i < kVectors; ++i) set[r][i].store(sum + r * pitch + i * V::kLanes);
      }
    }
  }
}

template <class V, size_t kVectors = 1, class Store>
void spmm_singles_of(const SpmmRows<SpmmEntry>& block, size_t vectors, const float* panel, const float* bias,
                     float* sums, const Store& store) {
  if constexpr (kVectors < V::kMaxVectors) {
    if (vectors != kVectors) return spmm_singles_of<V, kVectors + 1>(block, vectors, panel, bias, sums, store);
  }
  spmm_singles<V, kVectors>(block, panel, bias, sums, store);
}

template <class V>
void spmm(const SpmmBlock& block, size_t vectors, const float* panel, const float* bias, float* sums) {
  static_assert(V::kMaxVectors * V::kLanes <= kMostRowSums, "callers have room for the sums of a row");
  assert(vectors >= 1 && vectors <= V::kMaxVectors);
  // Single rows read the panel as memory operands, which need no alignment.
  assert(panel != nullptr && (is_aligned(panel) || block.quads.run_count == 0));
  assert(sums != nullptr && is_aligned(sums));
  assert(is_valid(block.singles, 1));
  assert(is_valid(block.quads, V::kLanes));
  spmm_singles_of<V>(block.singles, vectors, panel, bias, sums, StoreSums<V>{});
  if (block.quads.run_count == 0) return;
  static_assert(V::kQuadVectors <= 4, "a case for each width");
  const size_t pitch = vectors * V::kLanes;
  const size_t passes = (vectors + V::kQuadVectors - 1) / V::kQuadVectors;
  for (size_t pass = 0; pass < passes; ++pass) {
    const size_t first = vectors * pass / passes;
    const float* const from = panel + first * V::kLanes;
    float* const to = sums + first * V::kLanes;
    switch (vectors * (pass + 1) / passes - first) {
      case 1: spmm_quads<V, 1>(block.quads, from, bias, to, pitch); break;
      case 2: spmm_quads<V, 2>(block.quads, from, bias, to, pitch); break;
      case 3: spmm_quads<V, 3>(block.quads, from, bias, to, pitch); break;
      default: spmm_quads<V, 4>(block.quads, from, bias, to, pitch); break;
    }
  }
}

// Single rows alone, as far as the last block: their sums become results.
template <class V>
void spmm_last(const SpmmRows<SpmmEntry>& block, size_t vectors, const float* panel, const float* bias, float* sums,
               const SpmmResult& result) {
  assert(vectors >= 1 && vectors <= V::kMaxVectors);
  assert(panel != nullptr && result.to != nullptr);
  assert(is_valid(block, 1));
  spmm_singles_of<V>(block, vectors, panel, bias, sums, StoreResults<V>{result});
}

}  // namespace
}  // namespace onnxprune
