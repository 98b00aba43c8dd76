// Sparse matrix times one vector (SpMV), bound by memory: an entry takes six bytes.
//
// The x of the entries are first copied side by side, by integer loads and stores, of which CPUs do more a cycle than
// lanes of a vector gather (Zen 5: 0.23 against 0.32 ns an entry). While one buffer fills, the other is multiplied: a
// vector load of what narrow stores have just written would wait for them.
#pragma once

#include <string.h>

#include "bit_cast.h"
#include "kernels.h"
#include "preconditions.h"

namespace onnxprune {
namespace {

// Entries in a buffer; larger buffers compete for the L2 cache (512: 20 % slower where the weight comes from memory).
constexpr size_t kBuffered = 256;
// Entries by which prefetches run ahead.
constexpr size_t kEntriesAhead = 1024;

// gather() reads and writes several elements as one integer, whose lowest bits must be the first element.
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
constexpr bool kLittleEndian = false;
#else
constexpr bool kLittleEndian = true;
#endif

// to[i] = x[columns[i]]
inline void gather(const float* x, const uint16_t* columns, size_t count, float* to) {
  const auto bits = [x](uint64_t column) { return uint64_t{bit_cast<uint32_t>(x[column & 0xffff])}; };
  size_t i = 0;
  for (; kLittleEndian && i + 4 <= count; i += 4) {
    uint64_t four;
    memcpy(&four, columns + i, sizeof four);
    // Two floats per store; this also keeps compilers from vectorizing the loop with slower gathers.
    const uint64_t pair = bits(four) | bits(four >> 16) << 32;
    const uint64_t next = bits(four >> 32) | bits(four >> 48) << 32;
    memcpy(to + i, &pair, sizeof pair);
    memcpy(to + i + 2, &next, sizeof next);
  }
  for (; i < count; ++i) to[i] = x[columns[i]];
}

template <class V>
void spmv(const SpmvBlock& block, size_t first, size_t last, const float* x, float* sums) {
  assert(is_valid(block, first, last));
  assert(first == last || sums != nullptr);
  assert(block.row_start[first] == block.row_start[last] || x != nullptr);
  alignas(64) float buffers[2][kBuffered];
  const size_t end = block.row_start[last];
  size_t filled = block.row_start[first];
  const auto fill = [&](float* buffer) {
    const size_t count = end - filled < kBuffered ? end - filled : kBuffered;
    for (size_t i = 0; i < count; i += 16) V::prefetch(block.values + filled + i + kEntriesAhead);
    for (size_t i = 0; i < count; i += 32) V::prefetch(block.columns + filled + i + kEntriesAhead);
    gather(x, block.columns + filled, count, buffer);
    filled += count;
  };
  V even_set = V::zero();
  V odd_set = V::zero();
  size_t row = first;
  size_t entry = filled;
  size_t buffer = 0;
  fill(buffers[0]);
  while (row < last) {
    const float* const near_x = buffers[buffer];
    const size_t begin = entry;
    const size_t buffer_end = filled;
    fill(buffers[buffer ^= 1]);
    do {
      const size_t row_end = block.row_start[row + 1];
      const size_t stop = row_end < buffer_end ? row_end : buffer_end;
      for (; entry + 2 * V::kLanes <= stop; entry += 2 * V::kLanes) {
        even_set.add_product(V::load_unaligned(near_x + (entry - begin)), block.values + entry);
        const size_t next = entry + V::kLanes;
        odd_set.add_product(V::load_unaligned(near_x + (next - begin)), block.values + next);
      }
      while (entry < stop) {
        const size_t count = stop - entry < V::kLanes ? stop - entry : V::kLanes;
        const uint32_t mask = (uint32_t{1} << count) - 1;
        V factor = V::zero();
        factor.load_lanes(near_x + (entry - begin), mask);
        V value = V::zero();
        value.load_lanes(block.values + entry, mask);
        even_set.add_product(factor, value);
        entry += count;
      }
      if (stop != row_end) break;
      even_set.add(odd_set);
      sums[row - first] += even_set.sum();
      even_set = V::zero();
      odd_set = V::zero();
      ++row;
    } while (row < last);
  }
}

}  // namespace
}  // namespace onnxprune
