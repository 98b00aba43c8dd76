// Four floats: NEON of AArch64.
#pragma once

#include <arm_neon.h>

#include "kernels.h"

namespace onnxprune {
namespace {

struct NeonVector {
  static constexpr size_t kLanes = 4;
  static constexpr size_t kMaxVectors = 12;
  // Of 32 registers: two sets of accumulators for the widest tile.
  static constexpr size_t kAccumulators = 24;
  static constexpr size_t kTransposeSide = 4;
  static constexpr size_t kQuadVectors = 4;

  float32x4_t lanes;

  static NeonVector zero() { return {vdupq_n_f32(0)}; }
  static NeonVector load(const float* from) { return {vld1q_f32(from)}; }
  static NeonVector broadcast(const float* from) { return {vld1q_dup_f32(from)}; }
  // A value of the weight, as add_product takes it.
  static NeonVector factor(const float* from) { return broadcast(from); }
  static NeonVector load_unaligned(const float* from) { return {vld1q_f32(from)}; }
  static NeonVector load_every_other(const float* from) {
    // The second load ends with the last float that is needed, so as not to read beyond the input.
    return {vcombine_f32(vget_low_f32(vuzp1q_f32(vld1q_f32(from), vld1q_f32(from))),
                         vget_low_f32(vuzp2q_f32(vld1q_f32(from + 3), vld1q_f32(from + 3))))};
  }
  // Lanes from `count` on, which is less than all, are those of `rest`.
  static NeonVector load_some(const float* from, size_t count, const NeonVector& rest) {
    NeonVector vector = rest;
    vector.load_lanes(from, (1u << count) - 1);
    return vector;
  }
  static NeonVector hold(const float* from) { return load(from); }
  // The floats of both at even places, and those at odd ones.
  static void separate(const NeonVector& a, const NeonVector& b, NeonVector& even, NeonVector& odd) {
    const float32x4x2_t both = vuzpq_f32(a.lanes, b.lanes);
    even.lanes = both.val[0];
    odd.lanes = both.val[1];
  }
  static void prefetch(const void* from) { __builtin_prefetch(from); }
  void load_lanes(const float* from, uint32_t mask) {
    if (mask == 0xf) {
      lanes = vld1q_f32(from);
      return;
    }
    if ((mask & 1u) != 0) lanes = vld1q_lane_f32(from, lanes, 0);
    if ((mask & 2u) != 0) lanes = vld1q_lane_f32(from + 1, lanes, 1);
    if ((mask & 4u) != 0) lanes = vld1q_lane_f32(from + 2, lanes, 2);
    if ((mask & 8u) != 0) lanes = vld1q_lane_f32(from + 3, lanes, 3);
  }
  void add_product(const NeonVector& factor, const float* from) {
    lanes = vfmaq_f32(lanes, factor.lanes, vld1q_f32(from));
  }
  void add_product(const NeonVector& factor, const NeonVector& other) {
    lanes = vfmaq_f32(lanes, factor.lanes, other.lanes);
  }
  void add(const NeonVector& other) { lanes = vaddq_f32(lanes, other.lanes); }
  // To those of the other that are larger; keeps NaN.
  void raise(const NeonVector& other) { lanes = vmaxq_f32(lanes, other.lanes); }
  // Both keep NaN.
  void clip(const NeonVector& low, const NeonVector& high) {
    lanes = vminq_f32(vmaxq_f32(lanes, low.lanes), high.lanes);
  }
  void store(float* to) const { vst1q_f32(to, lanes); }
  void store_unaligned(float* to) const { vst1q_f32(to, lanes); }
  // The first `count` lanes, which are less than all.
  void store_some(float* to, size_t count) const {
    if (count > 0) vst1q_lane_f32(to, lanes, 0);
    if (count > 1) vst1q_lane_f32(to + 1, lanes, 1);
    if (count > 2) vst1q_lane_f32(to + 2, lanes, 2);
  }
  float sum() const { return vaddvq_f32(lanes); }
  static void transpose_square(const float* from, size_t from_stride, float* to, size_t to_stride) {
    const float32x4x2_t top = vtrnq_f32(vld1q_f32(from), vld1q_f32(from + from_stride));
    const float32x4x2_t bottom = vtrnq_f32(vld1q_f32(from + 2 * from_stride), vld1q_f32(from + 3 * from_stride));
    vst1q_f32(to, vcombine_f32(vget_low_f32(top.val[0]), vget_low_f32(bottom.val[0])));
    vst1q_f32(to + to_stride, vcombine_f32(vget_low_f32(top.val[1]), vget_low_f32(bottom.val[1])));
    vst1q_f32(to + 2 * to_stride, vcombine_f32(vget_high_f32(top.val[0]), vget_high_f32(bottom.val[0])));
    vst1q_f32(to + 3 * to_stride, vcombine_f32(vget_high_f32(top.val[1]), vget_high_f32(bottom.val[1])));
  }
};

}  // namespace
}  // namespace onnxprune
