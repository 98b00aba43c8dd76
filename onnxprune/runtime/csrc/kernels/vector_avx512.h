// Sixteen floats: AVX-512 F, which brings AVX2.
#pragma once

#include "vector_avx2.h"

namespace onnxprune {
namespace {

struct Avx512Vector {
  static constexpr size_t kLanes = 16;
  // A plane of 14 x 14 is one tile.
  static constexpr size_t kMaxVectors = 14;
  // Of 32 registers: two sets of accumulators for tiles of 12 vectors.
  static constexpr size_t kAccumulators = 24;
  static constexpr size_t kTransposeSide = 8;
  static constexpr size_t kQuadVectors = 4;

  __m512 lanes;

  static Avx512Vector zero() { return {_mm512_setzero_ps()}; }
  static Avx512Vector load(const float* from) { return {_mm512_load_ps(from)}; }
  static Avx512Vector broadcast(const float* from) { return {_mm512_set1_ps(*from)}; }
  // A value of the weight, as add_product takes it.
  static Avx512Vector factor(const float* from) { return broadcast(from); }
  static Avx512Vector load_unaligned(const float* from) { return {_mm512_loadu_ps(from)}; }
  static Avx512Vector load_every_other(const float* from) {
    // The second load ends with the last float that is needed. Indices from 16 on select its lanes.
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31);
    return {_mm512_permutex2var_ps(_mm512_loadu_ps(from), even, _mm512_loadu_ps(from + 15))};
  }
  // Lanes from `count` on, which is less than all, are those of `rest`.
  static Avx512Vector load_some(const float* from, size_t count, const Avx512Vector& rest) {
    return {_mm512_mask_loadu_ps(rest.lanes, first_lanes(count), from)};
  }
  // Held in a register: compilers would read it again for each use, which is slow where it crosses cache lines.
  static Avx512Vector hold(const float* from) {
    Avx512Vector vector = load_unaligned(from);
#ifdef __GNUC__
    __asm__("" : "+v"(vector.lanes));
#endif
    return vector;
  }
  // The floats of both at even places, and those at odd ones.
  static void separate(const Avx512Vector& a, const Avx512Vector& b, Avx512Vector& even, Avx512Vector& odd) {
    const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odds = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    even.lanes = _mm512_permutex2var_ps(a.lanes, evens, b.lanes);
    odd.lanes = _mm512_permutex2var_ps(a.lanes, odds, b.lanes);
  }
  using Mask = __mmask16;
  using Places = __m512i;
  // Lanes [from, to), as far as there are such.
  static Mask lanes_between(ptrdiff_t from, ptrdiff_t to) {
    const auto below = [](ptrdiff_t lane) { return lane <= 0 ? 0u : lane >= 16 ? 0xffffu : (1u << lane) - 1; };
    return static_cast<Mask>(below(to) & ~below(from));
  }
  // Other lanes are zero, and not read.
  static Avx512Vector load_lanes(Mask lanes, const float* from) { return {_mm512_maskz_loadu_ps(lanes, from)}; }
  static size_t count(Mask lanes) { return static_cast<size_t>(_mm_popcnt_u32(lanes)); }
  // Consecutive floats in these lanes, one after the other, zeros in the others; a whole vector is read.
  static Avx512Vector spread(Mask lanes, const float* from) {
    // Of a register that is known to be zero: the instruction waits for what its target had before.
    __m512 zero = _mm512_setzero_ps();
#ifdef __GNUC__
    __asm__("" : "+v"(zero));
#endif
    return {_mm512_mask_expand_ps(zero, lanes, hold(from).lanes)};
  }
  // `first`, and then every place `step` behind the one before.
  static Places places(size_t first, size_t step) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_add_epi32(_mm512_mullo_epi32(lane, _mm512_set1_epi32(static_cast<int>(step))),
                            _mm512_set1_epi32(static_cast<int>(first)));
  }
  // The floats at these places of two vectors side by side; what is behind both is anything.
  static Avx512Vector pick(const Avx512Vector& a, const Places& places, const Avx512Vector& b) {
    return {_mm512_permutex2var_ps(a.lanes, places, b.lanes)};
  }
  static void prefetch(const void* from) { Avx2Vector::prefetch(from); }
  void add_product(const Avx512Vector& factor, const float* from) {
    lanes = _mm512_fmadd_ps(factor.lanes, _mm512_loadu_ps(from), lanes);
  }
  void add_product(const Avx512Vector& factor, const Avx512Vector& other) {
    lanes = _mm512_fmadd_ps(factor.lanes, other.lanes, lanes);
  }
  void add(const Avx512Vector& other) { lanes = _mm512_add_ps(lanes, other.lanes); }
  // To those of the other that are larger. The order of operands keeps NaN.
  void raise(const Avx512Vector& other) { lanes = _mm512_max_ps(other.lanes, lanes); }
  // The order of operands keeps NaN.
  void clip(const Avx512Vector& low, const Avx512Vector& high) {
    lanes = _mm512_min_ps(high.lanes, _mm512_max_ps(low.lanes, lanes));
  }
  float sum() const { return _mm512_reduce_add_ps(lanes); }
  void store(float* to) const { _mm512_store_ps(to, lanes); }
  void store_unaligned(float* to) const { _mm512_storeu_ps(to, lanes); }
  // The first `count` lanes, which are less than all.
  void store_some(float* to, size_t count) const { _mm512_mask_storeu_ps(to, first_lanes(count), lanes); }
  static void transpose_square(const float* from, size_t from_stride, float* to, size_t to_stride) {
    Avx2Vector::transpose_square(from, from_stride, to, to_stride);
  }

 private:
  static __mmask16 first_lanes(size_t count) { return static_cast<__mmask16>((1u << count) - 1); }
};

}  // namespace
}  // namespace onnxprune
