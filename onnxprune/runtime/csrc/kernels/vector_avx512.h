// Sixteen floats: AVX-512 F, which brings AVX2.
#pragma once

#include "vector_avx2.h"

namespace onnxprune {
namespace {

struct Avx512Vector {
  static constexpr size_t kLanes = 16;
  static constexpr size_t kMaxVectors = 8;
  // Of 32 registers; both sets of the widest tile.
  static constexpr size_t kAccumulators = 16;
  static constexpr size_t kTransposeSide = 8;

  __m512 lanes;

  static Avx512Vector zero() { return {_mm512_setzero_ps()}; }
  static Avx512Vector load(const float* from) { return {_mm512_load_ps(from)}; }
  static Avx512Vector broadcast(const float* from) { return {_mm512_set1_ps(*from)}; }
  static void prefetch(const void* from) { Avx2Vector::prefetch(from); }
  void load_lanes(const float* from, uint32_t mask) {
    lanes = _mm512_mask_loadu_ps(lanes, static_cast<__mmask16>(mask), from);
  }
  void add_product(const Avx512Vector& factor, const float* from) {
    lanes = _mm512_fmadd_ps(factor.lanes, _mm512_loadu_ps(from), lanes);
  }
  void add(const Avx512Vector& other) { lanes = _mm512_add_ps(lanes, other.lanes); }
  void store(float* to) const { _mm512_store_ps(to, lanes); }
  static void transpose_square(const float* from, size_t from_stride, float* to, size_t to_stride) {
    Avx2Vector::transpose_square(from, from_stride, to, to_stride);
  }
};

}  // namespace
}  // namespace onnxprune
