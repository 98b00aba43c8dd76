// Operators of 8-bit integers that stand between products: sums, Softmax and MaxPool. Knows nothing of onnxruntime.
//
// They give the bits of QLinearAdd, QLinearSoftmax and MaxPool of onnxruntime on x86, and take less time. On ARM it adds
// in fixed point, where a sum may differ by one; beyond 2^31 steps it saturates to the wrong end, which these do not.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "threads.h"

namespace onnxprune {

using Sizes = std::vector<int64_t>;

// What bytes stand for: (byte - zero_point) * scale.
struct ByteScale {
  float scale;
  int32_t zero_point;
};

// The shape of the sum of two; throws Refusal where they do not broadcast.
Sizes broadcast(const Sizes& a, const Sizes& b);

struct Operand8 {
  const uint8_t* data;
  const Sizes& shape;
  ByteScale step;
};

// to = a + b, of shape broadcast(a.shape, b.shape).
void add(const ByteKernels& kernels, const Operand8& a, const Operand8& b, ByteScale step, bool is_signed, uint8_t* to,
         const Threads& threads);

// Softmax of u8 along an axis, counted from the end where it is negative. Throws Refusal where there is no such axis.
void softmax(const ByteKernels& kernels, const Operand8& x, int64_t axis, ByteScale step, uint8_t* to,
             const Threads& threads);

// What MaxPool of two axes reads: a window at each place, and what lies beyond x does not count.
struct PoolWindow {
  std::array<int64_t, 2> kernel;
  std::array<int64_t, 2> strides;
  std::array<int64_t, 2> begins;
  std::array<int64_t, 2> ends;
};

class BytePool {
 public:
  // Vectors are those of the attributes, empty where they are absent. Throws Refusal for what is no such window.
  BytePool(const Sizes& kernel, const Sizes& strides, const Sizes& pads);

  // Throws Refusal for an input that is not two images deep, or smaller than the window.
  Sizes output_shape(const Sizes& x_shape) const;
  void run(const uint8_t* x, const Sizes& x_shape, bool is_signed, uint8_t* y, const Threads& threads) const;

 private:
  PoolWindow window_;
};

}  // namespace onnxprune
