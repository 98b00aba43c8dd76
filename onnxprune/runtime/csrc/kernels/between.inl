// What stands between products of 8-bit integers: sums of bytes, and Softmax. They give the bits of onnxruntime's own
// operators on x86, which compute in floats. Plain loops, as in bytes.inl.
#pragma once

#if !defined(__GNUC__)
#include <math.h>
#endif
#include <string.h>

#include "bytes.inl"
#include "kernels.h"
#include "preconditions.h"

namespace onnxprune {
namespace {

// a * b + c, rounded once.
inline float multiply_add(float a, float b, float c) {
#if defined(__GNUC__)
  return __builtin_fmaf(a, b, c);  // needs no header, for the reason that kernels.h gives
#else
  return fmaf(a, b, c);
#endif
}

// A block of `add_bytes`. Bytes beyond s8 are those of u8: kSigned is a constant, so that the compiler extends vectors.
template <bool kSigned, size_t kBlock>
void add_block(const ByteSum& sum, const uint8_t* a, const uint8_t* b, uint8_t* to) {
  uint8_t first[kBlock];
  uint8_t second[kBlock];
  uint8_t results[kBlock];
  memcpy(first, a, kBlock);
  memcpy(second, b, kBlock);
  const auto number = [](uint8_t byte) {
    return static_cast<float>(kSigned ? static_cast<int32_t>(static_cast<int8_t>(byte)) : static_cast<int32_t>(byte));
  };
  const Rounding round({0, sum.low, sum.high});
  const float a_ratio = sum.a_ratio;
  const float b_ratio = sum.b_ratio;
  const float fixed = sum.fixed;
  for (size_t i = 0; i < kBlock; ++i) {
    results[i] = round(multiply_add(number(first[i]), a_ratio, multiply_add(number(second[i]), b_ratio, fixed)));
  }
  memcpy(to, results, kBlock);
}

template <bool kSigned>
void add_signed(const ByteSum& sum, const uint8_t* a, const uint8_t* b, size_t count, uint8_t* to) {
  in_blocks(
      count, [&](auto size, size_t i) { add_block<kSigned, size.kSize>(sum, a + i, b + i, to + i); },
      [&](size_t i) {
        uint8_t first[kNarrowBlock] = {};
        uint8_t second[kNarrowBlock] = {};
        uint8_t results[kNarrowBlock];
        memcpy(first, a + i, count - i);
        memcpy(second, b + i, count - i);
        add_block<kSigned, kNarrowBlock>(sum, first, second, results);
        memcpy(to + i, results, count - i);
      });
}

inline void add_bytes(const ByteSum& sum, const uint8_t* a, const uint8_t* b, size_t count, uint8_t* to) {
  assert(count == 0 || (a != nullptr && b != nullptr && to != nullptr));
  return sum.low < 0 ? add_signed<true>(sum, a, b, count, to) : add_signed<false>(sum, a, b, count, to);
}

inline uint8_t largest(const uint8_t* x, size_t count) {
  uint8_t found[kWideBlock] = {};
  size_t at = 0;
  for (; at + kWideBlock <= count; at += kWideBlock) {
    for (size_t i = 0; i < kWideBlock; ++i) found[i] = x[at + i] > found[i] ? x[at + i] : found[i];
  }
  for (size_t i = 0; at + i < count; ++i) found[i] = x[at + i] > found[i] ? x[at + i] : found[i];
  for (size_t i = 1; i < kWideBlock; ++i) found[0] = found[i] > found[0] ? found[i] : found[0];
  return found[0];
}

// `kRows` rows at once: each sum is taken in the order of its row, and rows hide each other's latency.
template <size_t kRows>
void softmax_rows(const ByteSoftmax& softmax, const uint8_t* x, size_t count, float* powers, uint8_t* to) {
  const float* tables[kRows];
  float sums[kRows] = {};
  for (size_t row = 0; row < kRows; ++row) tables[row] = softmax.table + (255 - largest(x + row * count, count));
  for (size_t i = 0; i < count; ++i) {
    for (size_t row = 0; row < kRows; ++row) {
      const float power = tables[row][x[row * count + i]];
      powers[row * count + i] = power;
      sums[row] += power;
    }
  }
  const int32_t zero_point = softmax.zero_point;
  for (size_t row = 0; row < kRows; ++row) {
    const float* const from = powers + row * count;
    uint8_t* const y = to + row * count;
    // Onnxruntime computes shares in double and rounds them to float, which takes away what this order of operations
    // leaves beside a number between two bytes.
    const double factor = static_cast<double>(softmax.factor) / static_cast<double>(sums[row]);
    const auto quotient = [factor, zero_point](float power) {
      const float share = static_cast<float>(static_cast<double>(power) * factor);
      // Larger ones saturate.
      const float kept = share < 256.0f ? share : 256.0f;
      const int32_t rounded = bit_cast<int32_t>(kept + Rounding::kRounder) - bit_cast<int32_t>(Rounding::kRounder);
      const int32_t byte = rounded + zero_point;
      return static_cast<uint8_t>(byte > 255 ? 255 : byte);
    };
    size_t i = 0;
    for (; i + kWideBlock <= count; i += kWideBlock) {
      float numbers[kWideBlock];
      uint8_t bytes[kWideBlock];
      memcpy(numbers, from + i, sizeof numbers);
      for (size_t k = 0; k < kWideBlock; ++k) bytes[k] = quotient(numbers[k]);
      memcpy(y + i, bytes, sizeof bytes);
    }
    for (; i < count; ++i) y[i] = quotient(from[i]);
  }
}

inline void softmax_bytes(const ByteSoftmax& softmax, const uint8_t* x, size_t rows, size_t count, float* powers,
                          uint8_t* to) {
  assert(rows == 0 || count == 0 || (x != nullptr && powers != nullptr && to != nullptr));
  size_t row = 0;
  for (; row + kSoftmaxRows <= rows; row += kSoftmaxRows) {
    softmax_rows<kSoftmaxRows>(softmax, x + row * count, count, powers, to + row * count);
  }
  for (; row < rows; ++row) softmax_rows<1>(softmax, x + row * count, count, powers, to + row * count);
}

}  // namespace
}  // namespace onnxprune
