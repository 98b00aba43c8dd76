// Four words of four bytes: NEON of AArch64, one instruction a product, which `Dot` is.
#pragma once

#include <arm_neon.h>

#include "kernels.h"

namespace onnxprune {
namespace {

// dot(sums, panel, weight) adds the four products of each word to its sum.
template <class Dot>
struct NeonByteVector {
  static constexpr size_t kLanes = 4;
  static constexpr size_t kMaxVectors = 12;
  // Of 32 registers: two sets of accumulators for the widest tile.
  static constexpr size_t kAccumulators = 24;
  static constexpr size_t kQuadVectors = 4;

  int32x4_t lanes;

  static NeonByteVector zero() { return {vdupq_n_s32(0)}; }
  static NeonByteVector load(const float* from) { return {vreinterpretq_s32_f32(vld1q_f32(from))}; }
  static NeonByteVector broadcast(const float* from) { return {vreinterpretq_s32_f32(vld1q_dup_f32(from))}; }
  // A word of the weight, as add_product takes it.
  static int8x16_t factor(const float* from) { return vreinterpretq_s8_f32(vld1q_dup_f32(from)); }
  void add_product(int8x16_t factor, const float* from) {
    lanes = Dot::dot(lanes, vreinterpretq_u8_f32(vld1q_f32(from)), factor);
  }
  void add_product(int8x16_t factor, const NeonByteVector& other) {
    lanes = Dot::dot(lanes, vreinterpretq_u8_s32(other.lanes), factor);
  }
  void add(const NeonByteVector& other) { lanes = vaddq_s32(lanes, other.lanes); }
  void store(float* to) const { vst1q_f32(to, vreinterpretq_f32_s32(lanes)); }
};

}  // namespace
}  // namespace onnxprune
