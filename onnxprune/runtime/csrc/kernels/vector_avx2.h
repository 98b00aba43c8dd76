// Eight floats: AVX2 with FMA.
#pragma once

#include <immintrin.h>

#include "kernels.h"

namespace onnxprune {
namespace {

struct Avx2Vector {
  static constexpr size_t kLanes = 8;
  static constexpr size_t kMaxVectors = 12;
  // Of 16 registers: two hold broadcast weights, and the compiler needs some spare.
  static constexpr size_t kAccumulators = 12;
  static constexpr size_t kTransposeSide = 8;
  // 12 sums (4 rows x 3 vectors), 3 factors and 1 broadcast weight fill the 16 registers.
  static constexpr size_t kQuadVectors = 3;

  __m256 lanes;

  static Avx2Vector zero() { return {_mm256_setzero_ps()}; }
  static Avx2Vector load(const float* from) { return {_mm256_load_ps(from)}; }
  static Avx2Vector broadcast(const float* from) { return {_mm256_broadcast_ss(from)}; }
  // A value of the weight, as add_product takes it.
  static Avx2Vector factor(const float* from) { return broadcast(from); }
  static Avx2Vector load_unaligned(const float* from) { return {_mm256_loadu_ps(from)}; }
  static Avx2Vector load_every_other(const float* from) {
    // The second load ends with the last float that is needed, so as not to read beyond the input.
    const __m256 mixed = _mm256_shuffle_ps(_mm256_loadu_ps(from), _mm256_loadu_ps(from + 7), _MM_SHUFFLE(3, 1, 2, 0));
    return {_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), _MM_SHUFFLE(3, 1, 2, 0)))};
  }
  // Lanes from `count` on, which is less than all, are those of `rest`.
  static Avx2Vector load_some(const float* from, size_t count, const Avx2Vector& rest) {
    const __m256i places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i first = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), places);
    return {_mm256_blendv_ps(rest.lanes, _mm256_maskload_ps(from, first), _mm256_castsi256_ps(first))};
  }
  // Held in a register: compilers would read it again for each use, which is slow where it crosses cache lines.
  static Avx2Vector hold(const float* from) {
    Avx2Vector vector = load_unaligned(from);
#ifdef __GNUC__
    __asm__("" : "+x"(vector.lanes));
#endif
    return vector;
  }
  // The floats of both at even places, and those at odd ones.
  static void separate(const Avx2Vector& a, const Avx2Vector& b, Avx2Vector& even, Avx2Vector& odd) {
    const auto in_order = [](__m256 mixed) {
      return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), _MM_SHUFFLE(3, 1, 2, 0)));
    };
    even.lanes = in_order(_mm256_shuffle_ps(a.lanes, b.lanes, _MM_SHUFFLE(2, 0, 2, 0)));
    odd.lanes = in_order(_mm256_shuffle_ps(a.lanes, b.lanes, _MM_SHUFFLE(3, 1, 3, 1)));
  }
  static void prefetch(const void* from) { _mm_prefetch(static_cast<const char*>(from), _MM_HINT_T0); }
  void load_lanes(const float* from, uint32_t mask) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i chosen = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(mask)), bit), bit);
    lanes = _mm256_or_ps(lanes, _mm256_maskload_ps(from, chosen));
  }
  void add_product(const Avx2Vector& factor, const float* from) {
    lanes = _mm256_fmadd_ps(factor.lanes, _mm256_loadu_ps(from), lanes);
  }
  void add_product(const Avx2Vector& factor, const Avx2Vector& other) {
    lanes = _mm256_fmadd_ps(factor.lanes, other.lanes, lanes);
  }
  void add(const Avx2Vector& other) { lanes = _mm256_add_ps(lanes, other.lanes); }
  // To those of the other that are larger. The order of operands keeps NaN.
  void raise(const Avx2Vector& other) { lanes = _mm256_max_ps(other.lanes, lanes); }
  // The order of operands keeps NaN.
  void clip(const Avx2Vector& low, const Avx2Vector& high) {
    lanes = _mm256_min_ps(high.lanes, _mm256_max_ps(low.lanes, lanes));
  }
  void store(float* to) const { _mm256_store_ps(to, lanes); }
  void store_unaligned(float* to) const { _mm256_storeu_ps(to, lanes); }
  // The first `count` lanes, which are less than all. Masked stores are slow on some processors.
  void store_some(float* to, size_t count) const {
    __m128 left = _mm256_castps256_ps128(lanes);
    if ((count & 4u) != 0) {
      _mm_storeu_ps(to, left);
      to += 4;
      left = _mm256_extractf128_ps(lanes, 1);
    }
    if ((count & 2u) != 0) {
      _mm_storel_pi(reinterpret_cast<__m64*>(to), left);
      to += 2;
      left = _mm_movehl_ps(left, left);
    }
    if ((count & 1u) != 0) _mm_store_ss(to, left);
  }
  float sum() const {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }
  static void transpose_square(const float* from, size_t from_stride, float* to, size_t to_stride) {
    __m256 row[8];
    __m256 pair[8];
    for (size_t i = 0; i < 8; ++i) row[i] = _mm256_loadu_ps(from + i * from_stride);
    for (size_t i = 0; i < 8; i += 2) {
      pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
      pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
    }
    for (size_t i = 0; i < 8; i += 4) {
      row[i] = _mm256_shuffle_ps(pair[i], pair[i + 2], _MM_SHUFFLE(1, 0, 1, 0));
      row[i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], _MM_SHUFFLE(3, 2, 3, 2));
      row[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], _MM_SHUFFLE(1, 0, 1, 0));
      row[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], _MM_SHUFFLE(3, 2, 3, 2));
    }
    for (size_t i = 0; i < 4; ++i) {
      _mm256_storeu_ps(to + i * to_stride, _mm256_permute2f128_ps(row[i], row[i + 4], 0x20));
      _mm256_storeu_ps(to + (i + 4) * to_stride, _mm256_permute2f128_ps(row[i], row[i + 4], 0x31));
    }
  }
};

}  // namespace
}  // namespace onnxprune
