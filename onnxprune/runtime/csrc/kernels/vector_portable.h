// Eight floats in plain C++: loops that compilers map to the vectors of the baseline instruction set.
#pragma once

#include "kernels.h"

namespace onnxprune {
namespace {

struct PortableVector {
  static constexpr size_t kLanes = 8;
  static constexpr size_t kMaxVectors = 12;
  // Vectors that fit the registers as running sums.
  static constexpr size_t kAccumulators = 4;
  static constexpr size_t kTransposeSide = 4;
  static constexpr size_t kQuadVectors = 1;

  float lane[kLanes];

  static PortableVector zero() { return PortableVector{}; }
  static PortableVector load(const float* from) {
    PortableVector vector;
    for (size_t i = 0; i < kLanes; ++i) vector.lane[i] = from[i];
    return vector;
  }
  static PortableVector broadcast(const float* from) {
    PortableVector vector;
    for (size_t i = 0; i < kLanes; ++i) vector.lane[i] = *from;
    return vector;
  }
  // A value of the weight, as add_product takes it.
  static PortableVector factor(const float* from) { return broadcast(from); }
  static PortableVector load_unaligned(const float* from) { return load(from); }
  static PortableVector load_every_other(const float* from) {
    PortableVector vector;
    for (size_t i = 0; i < kLanes; ++i) vector.lane[i] = from[2 * i];
    return vector;
  }
  // Lanes from `count` on, which is less than all, are those of `rest`.
  static PortableVector load_some(const float* from, size_t count, const PortableVector& rest) {
    PortableVector vector = rest;
    for (size_t i = 0; i < count; ++i) vector.lane[i] = from[i];
    return vector;
  }
  static PortableVector hold(const float* from) { return load(from); }
  // The floats of both at even places, and those at odd ones.
  static void separate(const PortableVector& a, const PortableVector& b, PortableVector& even, PortableVector& odd) {
    for (size_t i = 0; i < kLanes; ++i) {
      const float* const from = 2 * i < kLanes ? a.lane + 2 * i : b.lane + 2 * i - kLanes;
      even.lane[i] = from[0];
      odd.lane[i] = from[1];
    }
  }
  static void prefetch(const void*) {}
  void load_lanes(const float* from, uint32_t mask) {
    for (size_t i = 0; i < kLanes; ++i) {
      if ((mask >> i & 1u) != 0) lane[i] = from[i];
    }
  }
  void add_product(const PortableVector& factor, const float* from) {
    for (size_t i = 0; i < kLanes; ++i) lane[i] += factor.lane[i] * from[i];
  }
  void add_product(const PortableVector& factor, const PortableVector& other) { add_product(factor, other.lane); }
  void add(const PortableVector& other) {
    for (size_t i = 0; i < kLanes; ++i) lane[i] += other.lane[i];
  }
  // To those of the other that are larger.
  void raise(const PortableVector& other) {
    for (size_t i = 0; i < kLanes; ++i) lane[i] = lane[i] < other.lane[i] ? other.lane[i] : lane[i];
  }
  void clip(const PortableVector& low, const PortableVector& high) {
    for (size_t i = 0; i < kLanes; ++i) {
      const float raised = lane[i] < low.lane[i] ? low.lane[i] : lane[i];
      lane[i] = raised > high.lane[i] ? high.lane[i] : raised;
    }
  }
  void store(float* to) const {
    for (size_t i = 0; i < kLanes; ++i) to[i] = lane[i];
  }
  void store_unaligned(float* to) const { store(to); }
  // The first `count` lanes, which are less than all.
  void store_some(float* to, size_t count) const {
    for (size_t i = 0; i < count; ++i) to[i] = lane[i];
  }
  float sum() const {
    float total = 0;
    for (size_t i = 0; i < kLanes; ++i) total += lane[i];
    return total;
  }
  static void transpose_square(const float* from, size_t from_stride, float* to, size_t to_stride) {
    for (size_t row = 0; row < kTransposeSide; ++row) {
      for (size_t column = 0; column < kTransposeSide; ++column) {
        to[column * to_stride + row] = from[row * from_stride + column];
      }
    }
  }
};

}  // namespace
}  // namespace onnxprune
