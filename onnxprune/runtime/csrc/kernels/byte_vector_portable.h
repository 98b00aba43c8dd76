// Words of four bytes in plain C++, as many as the vectors have that move them.
#pragma once

#include <string.h>

#include "kernels.h"

namespace onnxprune {
namespace {

template <size_t kCount>
struct PortableByteVector {
  static constexpr size_t kLanes = kCount;
  static constexpr size_t kMaxVectors = 12;
  static constexpr size_t kAccumulators = 4;
  static constexpr size_t kQuadVectors = 1;

  struct Factor {
    int8_t bytes[4];
  };

  // Unsigned, so that sums wrap around.
  uint32_t lane[kLanes];

  static PortableByteVector zero() { return PortableByteVector{}; }
  static PortableByteVector load(const float* from) {
    PortableByteVector vector;
    memcpy(vector.lane, from, sizeof vector.lane);
    return vector;
  }
  static PortableByteVector broadcast(const float* from) {
    uint32_t word;
    memcpy(&word, from, sizeof word);
    PortableByteVector vector;
    for (size_t i = 0; i < kLanes; ++i) vector.lane[i] = word;
    return vector;
  }
  static Factor factor(const float* from) {
    Factor factor;
    memcpy(factor.bytes, from, sizeof factor.bytes);
    return factor;
  }
  void add_product(const Factor& factor, const float* from) {
    uint8_t bytes[4 * kLanes];
    memcpy(bytes, from, sizeof bytes);
    for (size_t i = 0; i < kLanes; ++i) {
      int32_t sum = 0;
      for (size_t k = 0; k < 4; ++k) sum += bytes[4 * i + k] * factor.bytes[k];
      lane[i] += static_cast<uint32_t>(sum);
    }
  }
  void add_product(const Factor& factor, const PortableByteVector& other) {
    float words[kLanes];
    memcpy(words, other.lane, sizeof words);
    add_product(factor, words);
  }
  void add(const PortableByteVector& other) {
    for (size_t i = 0; i < kLanes; ++i) lane[i] += other.lane[i];
  }
  void store(float* to) const { memcpy(to, lane, sizeof lane); }
};

}  // namespace
}  // namespace onnxprune
