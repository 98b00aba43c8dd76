// Words of four bytes: how they are made of rows of bytes, and how sums become bytes again. Plain loops, which the
// compiler vectorizes for the instruction set of the file.
#pragma once

#include <string.h>

#include "bit_cast.h"
#include "kernels.h"
#include "preconditions.h"

namespace onnxprune {
namespace {

// Elements that are worked on together, in arrays of their own, so that the compiler sees that nothing overlaps, and of
// constant size, so that copies are loads and stores. What is left over is brought to the smaller size.
constexpr size_t kWideBlock = 64;
constexpr size_t kNarrowBlock = 16;

template <size_t kRows, size_t kBlock>
void interleave_block(const uint8_t* from, size_t from_stride, uint32_t flips, float* to) {
  uint8_t rows[kRows][kBlock];
  uint32_t words[kBlock];
  for (size_t row = 0; row < kRows; ++row) memcpy(rows[row], from + row * from_stride, kBlock);
  for (size_t i = 0; i < kBlock; ++i) {
    uint32_t word = 0;
    for (size_t row = 0; row < kRows; ++row) {
      // The first row in the byte at the lowest address.
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
      word |= static_cast<uint32_t>(rows[row][i]) << (24 - 8 * row);
#else
      word |= static_cast<uint32_t>(rows[row][i]) << (8 * row);
#endif
    }
    words[i] = word ^ flips;
  }
  memcpy(to, words, sizeof words);
}

template <size_t kRows>
void interleave_rows(const uint8_t* from, size_t from_stride, size_t count, uint8_t flip, float* to) {
  const uint32_t flips = flip * 0x01010101u;
  size_t i = 0;
  for (; i + kWideBlock <= count; i += kWideBlock) {
    interleave_block<kRows, kWideBlock>(from + i, from_stride, flips, to + i);
  }
  for (; i + kNarrowBlock <= count; i += kNarrowBlock) {
    interleave_block<kRows, kNarrowBlock>(from + i, from_stride, flips, to + i);
  }
  if (i == count) return;
  uint8_t rest[kRows][kNarrowBlock] = {};
  float words[kNarrowBlock];
  for (size_t row = 0; row < kRows; ++row) memcpy(rest[row], from + row * from_stride + i, count - i);
  interleave_block<kRows, kNarrowBlock>(rest[0], kNarrowBlock, flips, words);
  memcpy(to + i, words, sizeof(float) * (count - i));
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

template <size_t kBlock>
void requantize_block(const OutputRange& range, float scale, const float* sums, uint8_t* to) {
  const auto low = static_cast<float>(range.low - range.zero_point);
  const auto high = static_cast<float>(range.high - range.zero_point);
  // 1.5 * 2^23: adding it rounds a small number to an integer, which is then in the low bits.
  constexpr float kRounder = 12582912.0f;
  const int32_t offset = range.zero_point - bit_cast<int32_t>(kRounder);
  int32_t words[kBlock];
  uint8_t bytes[kBlock];
  memcpy(words, sums, sizeof words);
  for (size_t i = 0; i < kBlock; ++i) {
    const float scaled = static_cast<float>(words[i]) * scale;
    // NaN, which only a scale can bring, becomes the lowest, as in onnxruntime.
    const float raised = scaled > low ? scaled : low;
    const float kept = raised < high ? raised : high;
    bytes[i] = static_cast<uint8_t>(bit_cast<int32_t>(kept + kRounder) + offset);
  }
  memcpy(to, bytes, sizeof bytes);
}

inline void requantize(const OutputRange& range, float scale, const float* sums, size_t count, uint8_t* to) {
  assert(count == 0 || (sums != nullptr && to != nullptr));
  size_t i = 0;
  for (; i + kWideBlock <= count; i += kWideBlock) requantize_block<kWideBlock>(range, scale, sums + i, to + i);
  for (; i + kNarrowBlock <= count; i += kNarrowBlock) requantize_block<kNarrowBlock>(range, scale, sums + i, to + i);
  if (i == count) return;
  float rest[kNarrowBlock] = {};
  uint8_t bytes[kNarrowBlock];
  memcpy(rest, sums + i, sizeof(float) * (count - i));
  requantize_block<kNarrowBlock>(range, scale, rest, bytes);
  memcpy(to + i, bytes, count - i);
}

}  // namespace
}  // namespace onnxprune
