// Floats as u8 whose scale and zero point come from their range, as DynamicQuantizeLinear makes them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"
#include "threads.h"

namespace onnxprune {

struct DynamicScale {
  float scale;
  uint8_t zero_point;
};

// to[i] = x[i] / scale + zero_point, rounded and saturated; 0 is a byte of its own.
DynamicScale quantize_dynamically(const ByteKernels& kernels, const float* x, size_t count, uint8_t* to,
                                  const Threads& threads);

}  // namespace onnxprune
