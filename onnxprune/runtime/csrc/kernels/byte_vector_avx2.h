// Eight words of four bytes: AVX2. VPMADDUBSW would add two products in 16 bits and saturate, so bytes are widened to
// 16 bits, those in even and those in odd places, and VPMADDWD multiplies and adds them in 32.
#pragma once

#include <immintrin.h>

#include "bit_cast.h"
#include "kernels.h"

namespace onnxprune {
namespace {

struct Avx2ByteVector {
  static constexpr size_t kLanes = 8;
  static constexpr size_t kMaxVectors = 8;
  // Of 16 registers: two hold weights, one a mask, and products take some.
  static constexpr size_t kAccumulators = 8;
  static constexpr size_t kQuadVectors = 2;

  struct Factor {
    __m256i even;
    __m256i odd;
  };

  __m256i lanes;

  static Avx2ByteVector zero() { return {_mm256_setzero_si256()}; }
  static Avx2ByteVector load(const float* from) { return {_mm256_load_si256(reinterpret_cast<const __m256i*>(from))}; }
  static Avx2ByteVector broadcast(const float* from) { return {_mm256_set1_epi32(bit_cast<int32_t>(*from))}; }
  static Factor factor(const float* from) {
    const __m256i words = _mm256_set1_epi32(bit_cast<int32_t>(*from));
    return {_mm256_srai_epi16(_mm256_slli_epi16(words, 8), 8), _mm256_srai_epi16(words, 8)};
  }
  void add_product(const Factor& factor, const Avx2ByteVector& other) {
    const __m256i even = _mm256_and_si256(other.lanes, _mm256_set1_epi16(0xff));
    const __m256i odd = _mm256_srli_epi16(other.lanes, 8);
    lanes = _mm256_add_epi32(lanes, _mm256_madd_epi16(even, factor.even));
    lanes = _mm256_add_epi32(lanes, _mm256_madd_epi16(odd, factor.odd));
  }
  void add_product(const Factor& factor, const float* from) {
    add_product(factor, Avx2ByteVector{_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))});
  }
  void add(const Avx2ByteVector& other) { lanes = _mm256_add_epi32(lanes, other.lanes); }
  void store(float* to) const { _mm256_store_si256(reinterpret_cast<__m256i*>(to), lanes); }
};

}  // namespace
}  // namespace onnxprune
