// Words of four bytes: how they are made of rows of bytes, and how sums become bytes again. Plain loops, which the
// compiler vectorizes for the instruction set of the file.
#pragma once

#include <string.h>

#include "bit_cast.h"
#include "kernels.h"
#include "preconditions.h"

namespace onnxprune {
namespace {

// Elements that are worked on together, in arrays of their own, so that the compiler sees that nothing overlaps.
constexpr size_t kByteBlock = 64;

template <size_t kRows>
void interleave_rows(const uint8_t* from, size_t from_stride, size_t count, uint8_t flip, float* to) {
  const uint32_t flips = flip * 0x01010101u;
  for (size_t first = 0; first < count; first += kByteBlock) {
    const size_t block = count - first < kByteBlock ? count - first : kByteBlock;
    uint8_t rows[4][kByteBlock] = {};
    uint8_t words[4 * kByteBlock];
    if (block == kByteBlock) {
      for (size_t row = 0; row < kRows; ++row) memcpy(rows[row], from + row * from_stride + first, kByteBlock);
    } else {
      for (size_t row = 0; row < kRows; ++row) memcpy(rows[row], from + row * from_stride + first, block);
    }
    for (size_t i = 0; i < kByteBlock; ++i) {
      // The first row in the byte at the lowest address.
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
      const uint32_t word = static_cast<uint32_t>(rows[0][i]) << 24 | static_cast<uint32_t>(rows[1][i]) << 16 |
                            static_cast<uint32_t>(rows[2][i]) << 8 | rows[3][i];
#else
      const uint32_t word = rows[0][i] | static_cast<uint32_t>(rows[1][i]) << 8 |
                            static_cast<uint32_t>(rows[2][i]) << 16 | static_cast<uint32_t>(rows[3][i]) << 24;
#endif
      const uint32_t flipped = word ^ flips;
      memcpy(words + 4 * i, &flipped, sizeof flipped);
    }
    memcpy(to + first, words, 4 * block);
  }
}

inline void interleave(const uint8_t* from, size_t from_stride, size_t rows, size_t count, uint8_t flip, float* to) {
  assert(rows >= 1 && rows <= 4);
  assert(count == 0 || (from != nullptr && to != nullptr));
  switch (rows) {
    case 1: return interleave_rows<1>(from, from_stride, count, flip, to);
    case 2: return interleave_rows<2>(from, from_stride, count, flip, to);
    case 3: return interleave_rows<3>(from, from_stride, count, flip, to);
    default: return interleave_rows<4>(from, from_stride, count, flip, to);
  }
}

inline void requantize(const OutputRange& range, float scale, const float* sums, size_t count, uint8_t* to) {
  assert(count == 0 || (sums != nullptr && to != nullptr));
  const auto low = static_cast<float>(range.low - range.zero_point);
  const auto high = static_cast<float>(range.high - range.zero_point);
  // 1.5 * 2^23: adding it rounds a small number to an integer, which is then in the low bits.
  constexpr float kRounder = 12582912.0f;
  const int32_t offset = range.zero_point - bit_cast<int32_t>(kRounder);
  for (size_t first = 0; first < count; first += kByteBlock) {
    const size_t block = count - first < kByteBlock ? count - first : kByteBlock;
    int32_t words[kByteBlock] = {};
    uint8_t bytes[kByteBlock];
    memcpy(words, sums + first, sizeof(int32_t) * block);
    for (size_t i = 0; i < kByteBlock; ++i) {
      const float scaled = static_cast<float>(words[i]) * scale;
      // NaN, which only a scale can bring, becomes the lowest, as in onnxruntime.
      const float raised = scaled > low ? scaled : low;
      const float kept = raised < high ? raised : high;
      bytes[i] = static_cast<uint8_t>(bit_cast<int32_t>(kept + kRounder) + offset);
    }
    memcpy(to + first, bytes, block);
  }
}

}  // namespace
}  // namespace onnxprune
