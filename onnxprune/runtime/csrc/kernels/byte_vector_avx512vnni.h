// Sixteen words of four bytes: AVX-512 VNNI, one VPDPBUSD a product.
#pragma once

#include <immintrin.h>

#include "bit_cast.h"
#include "kernels.h"

namespace onnxprune {
namespace {

struct Avx512VnniByteVector {
  static constexpr size_t kLanes = 16;
  static constexpr size_t kMaxVectors = 12;
  // Of 32 registers: two sets of accumulators for the widest tile.
  static constexpr size_t kAccumulators = 24;
  static constexpr size_t kQuadVectors = 4;

  __m512i lanes;

  static Avx512VnniByteVector zero() { return {_mm512_setzero_si512()}; }
  static Avx512VnniByteVector load(const float* from) { return {_mm512_load_si512(from)}; }
  static Avx512VnniByteVector broadcast(const float* from) { return {_mm512_set1_epi32(bit_cast<int32_t>(*from))}; }
  static Avx512VnniByteVector factor(const float* from) { return broadcast(from); }
  void add_product(const Avx512VnniByteVector& factor, const float* from) {
    lanes = _mm512_dpbusd_epi32(lanes, _mm512_loadu_si512(from), factor.lanes);
  }
  void add_product(const Avx512VnniByteVector& factor, const Avx512VnniByteVector& other) {
    lanes = _mm512_dpbusd_epi32(lanes, other.lanes, factor.lanes);
  }
  void add(const Avx512VnniByteVector& other) { lanes = _mm512_add_epi32(lanes, other.lanes); }
  void store(float* to) const { _mm512_store_si512(to, lanes); }
};

}  // namespace
}  // namespace onnxprune
