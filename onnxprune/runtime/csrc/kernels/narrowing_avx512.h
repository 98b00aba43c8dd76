// Sums to bytes by AVX-512: instructions that saturate, for numbers below 2^31; others take the plain loops.
#pragma once

#include <immintrin.h>

#include "between.inl"
#include "bytes.inl"
#include "kernels.h"

namespace onnxprune {
namespace {

constexpr size_t kLanes512 = 16;
// Below it, a product of a sum of 32 bits has no more than 32 bits.
constexpr float kMaxScale = 1.0f;
// Far below 2^31 when multiplied by bytes.
constexpr float kMaxRatio = 65536.0f;

// The first `count` elements of vector `index` of a block.
inline __mmask16 mask_of(size_t count, size_t index) {
  const size_t begin = index * kLanes512;
  return count >= begin + kLanes512 ? __mmask16{0xffff}
                                    : static_cast<__mmask16>(count <= begin ? 0 : (1u << (count - begin)) - 1);
}

// Rounds a block of numbers to the nearest (ties to even), adds the zero point, saturates, and stores `count` bytes.
inline void store_rounded(const __m512* numbers, int32_t zero_point, bool is_signed, size_t count, uint8_t* to) {
  const __m512i zero = _mm512_set1_epi16(static_cast<int16_t>(zero_point));
  const auto pair = [&](size_t first) {
    const __m512i even = _mm512_cvtps_epi32(numbers[first]);
    const __m512i odd = _mm512_cvtps_epi32(numbers[first + 1]);
    return _mm512_adds_epi16(_mm512_packs_epi32(even, odd), zero);
  };
  const __m512i low = pair(0);
  const __m512i high = pair(2);
  const __m512i mixed = is_signed ? _mm512_packs_epi16(low, high) : _mm512_packus_epi16(low, high);
  // Each 128 bits have four elements of each of the vectors.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes = _mm512_permutexvar_epi32(order, mixed);
  if (count >= kWideBlock) return _mm512_storeu_si512(to, bytes);
  _mm512_mask_storeu_epi8(to, (__mmask64{1} << count) - 1, bytes);
}

inline void requantize_avx512(const OutputRange& range, const float* scales, bool each, const float* sums, size_t count,
                              uint8_t* to) {
  if (each || !(scales[0] < kMaxScale && scales[0] > -kMaxScale)) {
    return requantize(range, scales, each, sums, count, to);
  }
  const __m512 scale = _mm512_set1_ps(scales[0]);
  for (size_t i = 0; i < count; i += kWideBlock) {
    const size_t rest = count - i;
    __m512 numbers[4];
    for (size_t k = 0; k < 4; ++k) {
      const __m512i words = rest >= kWideBlock ? _mm512_loadu_si512(sums + i + k * kLanes512)
                                               : _mm512_maskz_loadu_epi32(mask_of(rest, k), sums + i + k * kLanes512);
      numbers[k] = _mm512_mul_ps(_mm512_cvtepi32_ps(words), scale);
    }
    store_rounded(numbers, range.zero_point, range.low < 0, rest, to + i);
  }
}

template <bool kSigned>
__m512 load_bytes(const uint8_t* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm512_cvtepi32_ps(kSigned ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
}

template <bool kSigned>
size_t add_blocks(const ByteSum& sum, const uint8_t* a, const uint8_t* b, size_t count, uint8_t* to) {
  const __m512 a_ratio = _mm512_set1_ps(sum.a_ratio);
  const __m512 b_ratio = _mm512_set1_ps(sum.b_ratio);
  const __m512 fixed = _mm512_set1_ps(sum.fixed);
  size_t i = 0;
  for (; i + kWideBlock <= count; i += kWideBlock) {
    __m512 numbers[4];
    for (size_t k = 0; k < 4; ++k) {
      const size_t at = i + k * kLanes512;
      const __m512 part = _mm512_fmadd_ps(load_bytes<kSigned>(b + at), b_ratio, fixed);
      numbers[k] = _mm512_fmadd_ps(load_bytes<kSigned>(a + at), a_ratio, part);
    }
    store_rounded(numbers, 0, kSigned, kWideBlock, to + i);
  }
  return i;
}

inline void add_bytes_avx512(const ByteSum& sum, const uint8_t* a, const uint8_t* b, size_t count, uint8_t* to) {
  size_t done = 0;
  if (sum.a_ratio < kMaxRatio && sum.b_ratio < kMaxRatio && sum.a_ratio > -kMaxRatio && sum.b_ratio > -kMaxRatio) {
    done = sum.low < 0 ? add_blocks<true>(sum, a, b, count, to) : add_blocks<false>(sum, a, b, count, to);
  }
  add_bytes(sum, a + done, b + done, count - done, to + done);
}

}  // namespace
}  // namespace onnxprune
