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

template <size_t kCount>
struct BlockSize {
  static constexpr size_t kSize = kCount;
};

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

// Calls work(size, i) for the elements from i on, in blocks of a constant size; what is left is for rest(i).
template <class Work, class Rest>
void in_blocks(size_t count, const Work& work, const Rest& rest) {
  size_t i = 0;
  for (; i + kWideBlock <= count; i += kWideBlock) work(BlockSize<kWideBlock>{}, i);
  for (; i + kNarrowBlock <= count; i += kNarrowBlock) work(BlockSize<kNarrowBlock>{}, i);
  if (i < count) rest(i);
}

// Numbers rounded to the nearest bytes of a range.
struct Rounding {
  // 1.5 * 2^23: adding it rounds a small number to an integer, which is then in the low bits.
  static constexpr float kRounder = 12582912.0f;
  float low;
  float high;
  int32_t offset;

  explicit Rounding(const OutputRange& range)
      : low(static_cast<float>(range.low - range.zero_point)),
        high(static_cast<float>(range.high - range.zero_point)),
        offset(range.zero_point - bit_cast<int32_t>(kRounder)) {}

  uint8_t operator()(float number) const {
    // NaN, which only a scale can bring to sums, becomes the lowest, as in onnxruntime.
    const float raised = number > low ? number : low;
    const float kept = raised < high ? raised : high;
    return static_cast<uint8_t>(bit_cast<int32_t>(kept + kRounder) + offset);
  }
};

// Makes `to` of a block of sums: of each product of a sum by its scale, what `finish` makes of it.
template <bool kEach, size_t kBlock, class To, class Finish>
void finish_block(const float* scales, const float* sums, To* to, Finish finish) {
  int32_t words[kBlock];
  float factors[kBlock];
  To results[kBlock];
  memcpy(words, sums, sizeof words);
  if (kEach) memcpy(factors, scales, sizeof factors);
  const float scale = scales[0];
  for (size_t i = 0; i < kBlock; ++i) results[i] = finish(static_cast<float>(words[i]) * (kEach ? factors[i] : scale));
  memcpy(to, results, sizeof results);
}

// `make_finish()` makes what finishes a block: an object of its own for each, so that the compiler sees that results do
// not overwrite it.
template <bool kEach, class To, class MakeFinish>
void finish_sums(const float* scales, const float* sums, size_t count, To* to, const MakeFinish& make_finish) {
  in_blocks(
      count,
      [&](auto size, size_t i) {
        finish_block<kEach, size.kSize>(kEach ? scales + i : scales, sums + i, to + i, make_finish());
      },
      [&](size_t i) {
        float rest[kNarrowBlock] = {};
        float factors[kNarrowBlock] = {};
        To results[kNarrowBlock];
        memcpy(rest, sums + i, sizeof(float) * (count - i));
        memcpy(factors, kEach ? scales + i : scales, sizeof(float) * (kEach ? count - i : 1));
        finish_block<kEach, kNarrowBlock>(factors, rest, results, make_finish());
        memcpy(to + i, results, sizeof(To) * (count - i));
      });
}

inline void dequantize(const float* scales, bool each, const float* sums, size_t count, float* to) {
  assert(count == 0 || (scales != nullptr && sums != nullptr && to != nullptr));
  const auto same = [] { return [](float product) { return product; }; };
  return each ? finish_sums<true>(scales, sums, count, to, same) : finish_sums<false>(scales, sums, count, to, same);
}

inline void requantize(const OutputRange& range, const float* scales, bool each, const float* sums, size_t count,
                       uint8_t* to) {
  assert(count == 0 || (scales != nullptr && sums != nullptr && to != nullptr));
  const auto round = [&] { return Rounding(range); };
  return each ? finish_sums<true>(scales, sums, count, to, round) : finish_sums<false>(scales, sums, count, to, round);
}

inline void add(const float* terms, size_t count, float* to) {
  assert(count == 0 || (terms != nullptr && to != nullptr));
  for (size_t i = 0; i < count; ++i) to[i] += terms[i];
}

inline void extremes(const float* from, size_t count, float* low, float* high) {
  assert(count == 0 || from != nullptr);
  float lows[kNarrowBlock];
  float highs[kNarrowBlock];
  for (size_t i = 0; i < kNarrowBlock; ++i) {
    lows[i] = *low;
    highs[i] = *high;
  }
  const auto widen = [&](size_t i, float number) {
    lows[i] = number < lows[i] ? number : lows[i];
    highs[i] = number > highs[i] ? number : highs[i];
  };
  size_t at = 0;
  for (; at + kNarrowBlock <= count; at += kNarrowBlock) {
    for (size_t i = 0; i < kNarrowBlock; ++i) widen(i, from[at + i]);
  }
  for (; at < count; ++at) widen(0, from[at]);
  for (size_t i = 0; i < kNarrowBlock; ++i) {
    *low = lows[i] < *low ? lows[i] : *low;
    *high = highs[i] > *high ? highs[i] : *high;
  }
}

template <size_t kBlock>
void quantize_block(const OutputRange& range, float scale, const float* from, uint8_t* to) {
  const Rounding round(range);
  float numbers[kBlock];
  uint8_t bytes[kBlock];
  memcpy(numbers, from, sizeof numbers);
  for (size_t i = 0; i < kBlock; ++i) bytes[i] = round(numbers[i] / scale);
  memcpy(to, bytes, sizeof bytes);
}

inline void quantize(const OutputRange& range, float scale, const float* from, size_t count, uint8_t* to) {
  assert(count == 0 || (from != nullptr && to != nullptr));
  in_blocks(
      count, [&](auto size, size_t i) { quantize_block<size.kSize>(range, scale, from + i, to + i); },
      [&](size_t i) {
        float rest[kNarrowBlock] = {};
        uint8_t bytes[kNarrowBlock];
        memcpy(rest, from + i, sizeof(float) * (count - i));
        quantize_block<kNarrowBlock>(range, scale, rest, bytes);
        memcpy(to + i, bytes, count - i);
      });
}

}  // namespace
}  // namespace onnxprune
