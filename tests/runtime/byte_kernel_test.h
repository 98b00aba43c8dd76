// Tests of the micro-kernels for 8-bit integers against plain loops.
#pragma once

#include <cstddef>

#include "kernels/kernels.h"

namespace onnxprune {

// The number of failures, the first of which are printed.
size_t test_byte_kernels(const ByteKernels& kernels);
// The same of convolutions and products by these kernels.
size_t test_quantized(const ByteKernels& kernels);

}  // namespace onnxprune
